"""A codec without a VAE, whose latents are pixels, for the baseline that masks images (MAE, arXiv 2111.06377)."""

from typing import Any

from torch import Tensor, nn

from .base import LatentCodec


class PixelCodec(LatentCodec):
    """The identity. Its moments are the images themselves, [N, 3, H, W]: a posterior without variance."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(nn.Identity(), **kwargs)

    @property
    def moment_channels(self) -> int:
        return self.channels

    def network_encode(self, images: Tensor) -> Tensor:
        return images

    def network_decode(self, latents: Tensor) -> Tensor:
        return latents

    def mode(self, moments: Tensor) -> Tensor:
        """The images, float32."""
        self._check_images(moments)
        return moments.float()

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        """The images, float32; the noise has no effect."""
        return self.mode(moments)
