"""`init_cfg=dict(type='USPPretrained', …)`: pretrained weights as MMEngine's configs ask for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from usp_mm.strict_loading import load_exactly
from usp_mm.weight_files import read_weights

from .denoiser import transfer_encoder
from .encoder import check_blocks, encoder_weights, split_checkpoint

#: The final norms follow `out_type`: `fc_norm` may be new, and either may be left over. A VAE has weights of its own.
_VAE, _MAY_BE_NEW, _MAY_BE_LEFT = 'vae_encoder.', ('fc_norm.',), ('norm.', 'fc_norm.')


@WEIGHT_INITIALIZERS.register_module()
class USPPretrained:
    """`init_cfg=dict(type='USPPretrained', checkpoint=…)` of USPViT, DiT or SiT: load a pretrained encoder.

    USPViT takes it strictly: only `fc_norm` may be new, only final norms left over. DiT and SiT take it through
    `transfer_encoder`, whose report is logged; the generator makes its EMA copy afterwards. The blocks must be of one kind;
    rotary positions, which have no weights, are the one option that can't be compared.

    Args:
        checkpoint: pretraining, fine-tuned classifier (Table 9) or pixel MAE (Table 8a): a file of this package, of the
            official code, MAE or timm's ViT names.
        keep_layers, load_norms, load_patch_embed, load_pos_embed, pos_interp: of DiT and SiT, see `transfer_encoder`.
        prefix: of the encoder's keys in this package's checkpoints.

    Raises (when the weights are initialised):
        FileNotFoundError: no such file.
        ValueError: `checkpoint` unset, a switch that the model doesn't have, keys or shapes that do not fit.
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
