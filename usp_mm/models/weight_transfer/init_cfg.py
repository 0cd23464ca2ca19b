"""The initializer `init_cfg=dict(type='USPPretrained', …)`, which starts a model from pretrained weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from usp_mm.fileio.strict_loading import load_exactly
from usp_mm.fileio.weights import read_weights

from .encoder import check_blocks, encoder_weights, split_checkpoint
from .to_generator import transfer_encoder

#: The final norms depend on `out_type`: `fc_norm` may be new, and both may be left over. A VAE loads its own weights.
_VAE, _MAY_BE_NEW, _MAY_BE_LEFT = 'vae_encoder.', ('fc_norm.',), ('norm.', 'fc_norm.')


@WEIGHT_INITIALIZERS.register_module()
class USPPretrained:
    """Loads a pretrained encoder into USPViT, DiT or SiT: `init_cfg=dict(type='USPPretrained', checkpoint=…)`.

    USPViT loads it strictly: only `fc_norm` may be new, and only final norms may be left over. DiT and SiT use
    `transfer_encoder` and log its report; the generator creates its EMA copy afterwards. The blocks must be of the same kind.
    Only rotary positions can't be compared, since they have no weights.

    Args:
        checkpoint: File of a pretrained network, a fine-tuned classifier (Table 9) or a pixel MAE (Table 8a), with the names
            of this package, the official code, MAE or timm's ViT.
        keep_layers, load_norms, load_patch_embed, load_pos_embed, pos_interp: See `transfer_encoder`; only for DiT and SiT.
        prefix: Prefix of the encoder's keys in this package's checkpoints.

    Raises (when the weights are initialised):
        FileNotFoundError: The file does not exist.
        ValueError: `checkpoint` is unset, the model does not support a given argument, or keys or shapes do not fit.
    """

    def __init__(
        self,
        checkpoint: str | None,
        keep_layers: int | Sequence[int] | None = None,
        load_norms: bool = True,
        load_patch_embed: bool = True,
        load_pos_embed: bool = True,
        pos_interp: str = 'bicubic',
        prefix: str = 'backbone.',
    ) -> None:
        if not checkpoint:
            raise ValueError(
                'init_cfg.checkpoint is unset: give the pretrained checkpoint, or init_cfg=None for random weights'
            )
        self.checkpoint, self.prefix = checkpoint, prefix
        self.switches: dict[str, Any] = dict(
            keep_layers=keep_layers,
            load_norms=load_norms,
            load_patch_embed=load_patch_embed,
            load_pos_embed=load_pos_embed,
            pos_interp=pos_interp,
        )

    def __call__(self, module: nn.Module) -> None:
        is_denoiser = hasattr(module, 'x_embedder')
        unset: dict[str, Any] = transfer_encoder.__kwdefaults__ or {}
        changed = {name: value for name, value in self.switches.items() if value != unset[name]}
        if changed and not is_denoiser:
            raise ValueError(
                f'init_cfg of {type(module).__name__} sets {changed}: these are switches of DiT and SiT, an encoder is '
                'loaded whole (its own interpolate_mode resizes the position table)'
            )
        state_dict = read_weights(self.checkpoint)
        (self._start_denoiser if is_denoiser else self._load_encoder)(module, state_dict)

    def _start_denoiser(self, module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
        weights, beside = split_checkpoint(state_dict, self.prefix)
        try:
            report = transfer_encoder(module, weights, **self.switches)
        except ValueError as error:
            raise ValueError(f"'{self.checkpoint}' does not fit {type(module).__name__}: {error}") from error
        logger = MMLogger.get_current_instance()
        logger.info(f'{type(module).__name__} starts from {self.checkpoint}: {report.with_dropped(beside)}')

    def _load_encoder(self, module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
        weights = encoder_weights(state_dict, self.prefix)
        try:
            check_blocks(weights, module.state_dict())
        except ValueError as error:
            raise ValueError(f"'{self.checkpoint}' does not fit the backbone: {error}") from error
        let = load_exactly(
            module, weights, self.checkpoint, 'the backbone', fix='another arch or VAE?',
            allow_missing=(_VAE, *_MAY_BE_NEW), allow_unexpected=_MAY_BE_LEFT,
        )  # fmt: skip
        new = [name for name in let.missing if not name.startswith(_VAE)]
        MMLogger.get_current_instance().info(
            f'{len(weights) - len(let.unexpected)} tensors from {self.checkpoint}; '
            f'new: {new or "none"}; left over: {[*let.unexpected] or "none"}'
        )
