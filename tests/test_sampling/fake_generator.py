"""A generator whose samples are exact arithmetic of (seed, number, class), and which counts what it draws."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import torch
from mmengine.config import Config
from torch import Tensor, nn

from usp_mm.apis import LoadedGenerator

SIDE = 8


class FakeGenerator(nn.Module):
    """What the sampling API asks of a `LatentDiffusionGenerator`: a latent number is a pixel, three classes."""

    def __init__(self, checkpoint: Path | None, steps: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.steps, self.drawn, self.batches = steps, [], []
        self.stop_after, self.broken = None, -1
        self.denoiser = SimpleNamespace(num_classes=3, geometry=SimpleNamespace(img_size=SIDE))
        self.sampler = SimpleNamespace(batch_invariant=True, num_updates=steps)
        codec = SimpleNamespace(name='fake', weight_hash='0' * 16, dtype=torch.float32, scale=torch.ones(3))
        self.data_preprocessor = SimpleNamespace(codec=codec)
        self.loaded = LoadedGenerator(self)
        if checkpoint is None:
            return
        config = Config(dict(model=dict(denoiser=dict(type='Fake', arch=dict(depth=2), init_cfg=dict(type='Any')))))
        self.loaded = LoadedGenerator(self, config, checkpoint, ('cat', 'dog', 'fish'))

    def network(self, sample_model: str | None = None) -> nn.Module:
        return self

    def sampling_weights(self, sample_model: str | None = None) -> AbstractContextManager:
        return nullcontext()

    def describe(self, sample_model: str | None = None) -> dict:
        return dict(
            objective=dict(name='FakeObjective'),
            sampler=dict(name='FakeSampler', num_steps=self.steps),
            guidance=dict(scale=1.0),
            sample_model=sample_model or 'ema',
        )

    def sample_latents(self, index: Tensor, label: Tensor, *, seed=0, sample_model=None, on_step=None) -> Tensor:
        """The last step's state; the state of step k is all k + 1 above the sample's own numbers."""
        if self.stop_after is not None and len(self.drawn) >= self.stop_after:
            raise KeyboardInterrupt
        self.drawn += index.tolist()
        self.batches.append(len(index))
        value = (7 * index + 50 * label + 3 * seed) % 200
        latents = (value.float()[:, None] + torch.arange(3))[..., None, None] + torch.arange(SIDE)
        latents = latents.expand(-1, -1, SIDE, -1)
        latents = torch.where((index == self.broken)[:, None, None, None], torch.nan, latents)
        for k in range(self.steps):
            if on_step is not None:
                on_step(k, latents + (k + 1))
        return latents + self.steps

    def decode(self, latents: Tensor) -> Tensor:
        return latents.to(torch.uint8)
