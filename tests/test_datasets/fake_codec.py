"""A VAE whose encoding of an image is exact arithmetic, and folders of images to encode."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from usp_mm.vaes import LatentCodec


class FakeNetwork(nn.Module):
    """Moments from 8×8 averages; a ramp along the rows makes the mirror image's differ from mirrored moments."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.0))
        self.calls = 0

    def encode(self, images: Tensor) -> Tensor:
        self.calls += 1
        pooled = F.avg_pool2d(images, 8)
        ramp = torch.linspace(-1, 1, pooled.shape[-1]).expand_as(pooled[:, :1])
        mean = torch.cat([5 * pooled, pooled[:, :1] + ramp], dim=1)
        return torch.cat([mean, mean - 20], dim=1)


def fake_codec(name: str = 'sd-f8d4') -> LatentCodec:
    return LatentCodec(FakeNetwork(), name=name, channels=4, stride=8, patch_size=2, scale=0.18215)


def image_folder(root: Path, counts: dict[str, int], side: tuple[int, int] = (40, 32)) -> Path:
    """`counts[name]` random PNG images in each class folder, or in `root` itself for the name ''."""
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            small.resize(side, Image.Resampling.BICUBIC).save(root / name / f'{i}.png')
    return root


def truncate_jpeg(path: Path) -> Path:
    """A JPEG with the second half of its bytes missing."""
    Image.effect_noise((64, 64), 50).convert('RGB').save(path, quality=95)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path
