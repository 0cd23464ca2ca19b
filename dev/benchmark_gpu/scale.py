"""Sizes: those of a GPU, or toy sizes on a CPU that say nothing about speed."""

from dataclasses import dataclass
from typing import Any

TINY_ARCH = dict(depth=2, num_heads=2, embed_dims=32, decoder_depth=1, decoder_heads=2, decoder_dims=16)
#: Of the correctness checks, on every device.
CHECK_ARCH = {**TINY_ARCH, 'embed_dims': 64}
CHECK_SIZE, CHECK_CLASSES = 64, 10


@dataclass(frozen=True)
class Scale:
    """What a section is measured at.

    Attributes:
        toy: sizes that a CPU core computes in seconds, without torch.compile.
    """

    toy: bool

    @property
    def device(self) -> str:
        return 'cpu' if self.toy else 'cuda'

    @property
    def img_size(self) -> int:
        return 64 if self.toy else 256

    @property
    def latent_size(self) -> int:
        return self.img_size // 8

    @property
    def classes(self) -> int:
        return 10 if self.toy else 1000

    @property
    def vae(self) -> str:
        return 'tiny' if self.toy else 'sd-f8d4'

    @property
    def steps(self) -> tuple[int, int]:
        """(steps before anything counts, steps that count)."""
        return (1, 2) if self.toy else (4, 12)

    @property
    def sample_steps(self) -> int:
        return 3 if self.toy else 50

    def arch(self, name: str) -> Any:
        return TINY_ARCH if self.toy else name

    def batch(self, size: int) -> int:
        return min(size, 4) if self.toy else size
