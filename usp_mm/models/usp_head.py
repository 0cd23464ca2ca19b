"""The reconstruction loss of pretraining (USP section 3.1)."""

from mmengine.model import BaseModule
from torch import Tensor

from usp_mm.functional.patchify import normalize_target, patch_statistics, patchify
from usp_mm.registry import MODELS


@MODELS.register_module()
class USPHead(BaseModule):
    """Mean squared error between predicted and true patches, averaged over the masked ones, in float32.

    Args:
        norm_pix: 'patch' normalises the target of each token by itself, 'image' the whole latent, None nothing (Table 8c).
        patch_size: Latent pixels per token side; `USP` sets it to its backbone's.
    """

    def __init__(self, norm_pix: str | None = 'patch', patch_size: int = 2, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        if norm_pix not in ('patch', 'image', None):
            raise ValueError(f"norm_pix={norm_pix!r} must be 'patch', 'image' or None")
        self.norm_pix, self.patch_size = norm_pix, patch_size

    def loss(self, pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Predicted patches [N, L, P·P·C], latents [N, C, H, W], mask [N, L] (1: hidden) -> scalar."""
        patches = normalize_target(patchify(target, self.patch_size), self.norm_pix)
        error = (pred.float() - patches).square().mean(dim=-1)
        return (error * mask).sum() / mask.sum()

    def denormalize(self, pred: Tensor, target: Tensor) -> Tensor:
        """Bring predicted patches to the scale of the latents `target`, whose statistics normalised the targets."""
        if self.norm_pix is None:
            return pred.float()
        mean, std = patch_statistics(patchify(target, self.patch_size), self.norm_pix)
        return pred.float() * std + mean
