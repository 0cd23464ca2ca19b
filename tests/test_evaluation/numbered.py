"""Images that carry their number, and an extractor that turns the number into recorded features."""

from pathlib import Path

import numpy as np
import torch
from helpers import golden
from torch import Tensor, nn


def images(num: int, kind: int = 0, size: int = 8) -> np.ndarray:
    """uint8[num, size, size, 3]: red and green hold the number, blue the kind (0 fake, 1 real)."""
    out = np.empty((num, size, size, 3), np.uint8)
    number = np.arange(num)[:, None, None]
    out[..., 0], out[..., 1], out[..., 2] = number % 256, number // 256, kind
    return out


def write_reference(path: Path, num: int = 600, **arrays: np.ndarray) -> str:
    """An .npz of real images."""
    np.savez(path, arr_0=images(num, kind=1), **arrays)
    return str(path)


class Recorded(nn.Module):
    """Numbered images -> the golden features of that number. `seen` counts the images."""

    identity = 'recorded'

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        arrays = golden.load('metrics')
        tables = np.stack([arrays['fake_features'], arrays['real_features']]) * factor
        self.register_buffer('tables', torch.from_numpy(tables).float())
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        red, green, blue = x[:, :, 0, 0].long().unbind(1)
        return self.tables[blue, red + 256 * green]


def results(numbers: list[int]) -> list[dict]:
    """What a generator gives for these numbers, as mmagic's Evaluator hands it on."""
    bgr = torch.from_numpy(images(max(numbers) + 1)).flip(3).permute(0, 3, 1, 2).float()
    return [dict(fake_img=bgr[i], sample_idx=i, gt_label=torch.tensor([0])) for i in numbers]
