"""USP pretraining: masked latent modelling (arXiv 2503.06132, section 3.1 and appendix A)."""

from typing import Any

from mmpretrain.models.selfsup.base import BaseSelfSupervisor
from torch import Tensor, nn

from usp_mm.functional.ddpm import diffuse
from usp_mm.functional.masking import Mask, mask_from_noise
from usp_mm.functional.patchify import unpatchify
from usp_mm.presets import VAES, lookup
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import older_arguments

from .compiling import Compiling, compile_arguments
from .data_preprocessor import preprocessor_config
from .geometry import share_vae
from .random_keys import SampleKeys, sample_keys


@MODELS.register_module()
@older_arguments(noise_alpha_bar='alpha_bar_range')
class USP(BaseSelfSupervisor):
    """Masked pretraining: encodes the visible latent patches, decodes all patches and compares the masked ones.

    The VAE is named once, in `data_preprocessor.vae`. `arch`, `img_size` and `patch_size` are set once, in `backbone`.

    Args:
        backbone, neck, head: Configs of USPViT, USPDecoder and USPHead.
        data_preprocessor: Config of LatentDataPreprocessor.
        mask_ratio: Share of hidden tokens, in (0, 1).
        alpha_bar_range: Range (low, high) of ᾱ. The encoder's input is diffused to a level that is drawn uniformly from it for
            each sample, while the target stays clean (appendix A; official: 0.5, 1.0). None adds no noise.
        compile: False, 'blocks', 'loss', or a dict of arguments of torch.compile with `region`, see `Compiling`.
        tf32: Whether float32 may round to TF32 on a GPU, see TF32Hook.
        init_cfg: MMEngine's `init_cfg`.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'compile': compile_arguments}

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        data_preprocessor: dict | None = None,
        mask_ratio: float = 0.75,
        alpha_bar_range: tuple[float, float] | None = None,
        compile: str | bool | dict = False,
        tf32: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f'mask_ratio={mask_ratio} must lie between 0 and 1')
        if alpha_bar_range is not None and not 0 <= alpha_bar_range[0] <= alpha_bar_range[1] <= 1:
            raise ValueError(f'alpha_bar_range={alpha_bar_range} must be (low, high) with 0 <= low <= high <= 1')
        data_preprocessor = preprocessor_config(data_preprocessor)
        backbone = share_vae(data_preprocessor, backbone)
        neck = {'type': 'USPDecoder', **_shape_of(backbone), **(neck or {})}
        super().__init__(backbone, neck, _head_of(backbone, head), None, None, data_preprocessor, init_cfg)
        self.mask_ratio, self.alpha_bar_range, self.tf32 = mask_ratio, alpha_bar_range, tf32
        self.data_preprocessor.pass_on(keys=True)
        self.compiling = Compiling(compile)
        self.compiling.compile_blocks(self.backbone.blocks, self.neck.decoder_blocks)

    def forward(
        self, inputs: Tensor, data_samples: list | None = None, mode: str = 'tensor', keys: SampleKeys | None = None
    ) -> Any:
        """Run one of mmpretrain's modes. `keys` are used by 'loss' only, see `loss`."""
        if mode == 'loss':
            return self.loss(inputs, data_samples, keys)
        return super().forward(inputs, data_samples, mode)

    def loss(self, inputs: Tensor, data_samples: list | None, keys: SampleKeys | None = None) -> dict[str, Tensor]:
        """Latents [N, C, H, W] -> dict(loss). `keys` are by default computed from the data samples."""
        if keys is None:
            keys = self._keys(inputs, data_samples)
        return dict(loss=self.compiling.loss(USP._loss)(self, inputs, keys))

    def _loss(self, latents: Tensor, keys: SampleKeys) -> Tensor:
        mask = self._mask(keys)
        pred = self.predict_patches(self._noised(latents, keys), mask)
        return self.head.loss(pred, latents, mask.mask)

    def predict_patches(self, latents: Tensor, mask: Mask) -> Tensor:
        """Latents and a mask over their tokens -> predicted patches [N, L, P·P·C], normalised as the head's targets are."""
        return self.neck(self.backbone.forward_visible(latents, mask.keep), mask.restore)

    def draw_mask(self, latents: Tensor, data_samples: list | None) -> Mask:
        """Draw the mask of each sample, which depends only on (seed, epoch, sample)."""
        return self._mask(self._keys(latents, data_samples))

    def _mask(self, keys: SampleKeys) -> Mask:
        rows, cols = self.backbone.geometry.grid
        return mask_from_noise(keys.uniform(rows * cols, 'mask'), self.mask_ratio)

    def _keys(self, latents: Tensor, data_samples: list | None) -> SampleKeys:
        return sample_keys(data_samples, len(latents), latents.device, self.training)

    def reconstruct(self, latents: Tensor, data_samples: list | None = None, denormalize: bool = True) -> tuple[Tensor, Tensor]:
        """Predicted latents [N, C, H, W], also at visible tokens, and the mask [N, 1, h, w] over tokens (1: hidden).

        `denormalize` brings normalised predictions to the mean and scale of the true patches, as in MAE's pictures. Without it
        they stay as the network predicts them, as in the official USP's pictures.
        """
        mask = self.draw_mask(latents, data_samples)
        pred = self.predict_patches(latents, mask)
        if denormalize:
            pred = self.head.denormalize(pred, latents)
        grid = self.backbone.geometry.grid
        return unpatchify(pred, self.backbone.geometry.patch_size, grid), mask.mask.reshape(-1, 1, *grid)

    def _noised(self, latents: Tensor, keys: SampleKeys) -> Tensor:
        if self.alpha_bar_range is None:
            return latents
        low, high = self.alpha_bar_range
        alpha_bar = low + (high - low) * keys.uniform(1, 'noise_level')
        noise = keys.normal(tuple(latents.shape[1:]), 'latent_noise')
        return diffuse(latents, alpha_bar[:, 0], noise)


def _shape_of(backbone: dict) -> dict:
    return {key: backbone[key] for key in ('arch', 'vae', 'img_size', 'patch_size') if key in backbone}


def _head_of(backbone: dict, head: Any) -> Any:
    """The head's config, completed with the backbone's patch size; a built module is returned as it is.

    Raises:
        ValueError: The head has another patch size.
    """
    patch_size = backbone.get('patch_size') or lookup(VAES, backbone['vae'], 'VAE')['patch_size']
    if not isinstance(head, nn.Module):
        head = {'type': 'USPHead', 'patch_size': patch_size, **(head or {})}
    found = head.patch_size if isinstance(head, nn.Module) else head['patch_size']
    if found != patch_size:
        raise ValueError(
            f"head.patch_size={found}, but the backbone's is {patch_size}: "
            'set only model.backbone.patch_size, the head follows it'
        )
    return head
