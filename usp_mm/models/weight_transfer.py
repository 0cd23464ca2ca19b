"""Start a model from pretrained weights: the one place that maps names and resizes position tables."""

from collections.abc import Mapping
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import Tensor, nn

from usp_mm.functional.pos_embed import resize_pos_embed
from usp_mm.vaes.weights import read_weights

#: Names of an encoder, with this package's prefix or none.
ENCODER_KEYS = ('cls_token', 'pos_embed', 'patch_embed.', 'blocks.', 'norm.', 'fc_norm.')
#: The final norms follow `out_type`: `fc_norm` may be new, and either may be left over.
_MAY_BE_NEW, _MAY_BE_LEFT = ('fc_norm.',), ('norm.', 'fc_norm.')


def encoder_weights(state_dict: Mapping[str, Tensor], prefix: str = 'backbone.') -> dict[str, Tensor]:
    """The encoder of a checkpoint with this package's names (under `prefix`) or the official ones (no prefix).

    Raises:
        ValueError: no encoder in it.
    """
    if prefix + 'cls_token' in state_dict:
        return {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    if 'cls_token' in state_dict:
        return {key: value for key, value in state_dict.items() if key.startswith(ENCODER_KEYS)}
    raise ValueError(
        f"no encoder in the checkpoint: neither '{prefix}cls_token' nor 'cls_token' among {sorted(state_dict)[:5]}…"
    )


def fit_pos_embed(table: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """A square table with class token [1, 1 + s·s, D], resized to `grid`; one that is not square is returned as it is."""
    side = round((table.shape[1] - 1) ** 0.5)
    if side * side != table.shape[1] - 1 or (side, side) == grid:
        return table
    MMLogger.get_current_instance().info(f'position table {side}x{side} resized to {grid[0]}x{grid[1]} ({mode})')
    return resize_pos_embed(table, (side, side), grid, mode)


@WEIGHT_INITIALIZERS.register_module()
class USPPretrained:
    """`init_cfg=dict(type='USPPretrained', checkpoint=…)` of a backbone: load a pretrained encoder, strictly.

    Args:
        checkpoint: a file of this package, of the official code, MAE or timm's ViT names.
        prefix: of the encoder's keys in this package's checkpoints.

    Raises (when the weights are initialised):
        FileNotFoundError: no such file.
        ValueError: `checkpoint` unset, keys or shapes that do not fit. Only `fc_norm` may be new, only final norms left over.
    """

    def __init__(self, checkpoint: str | None, prefix: str = 'backbone.') -> None:
        if not checkpoint:
            raise ValueError(
                'init_cfg.checkpoint is unset: give the pretrained checkpoint, or init_cfg=None for random weights'
            )
        self.checkpoint, self.prefix = checkpoint, prefix

    def __call__(self, module: nn.Module) -> None:
        weights = encoder_weights(read_weights(self.checkpoint), self.prefix)
        try:
            result: Any = module.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ValueError(f"'{self.checkpoint}' does not fit the backbone: {error}") from error
        wrong = [key for key in result.missing_keys if not key.startswith(_MAY_BE_NEW)]
        wrong += [key for key in result.unexpected_keys if not key.startswith(_MAY_BE_LEFT)]
        if wrong:
            raise ValueError(
                f"'{self.checkpoint}' does not fit the backbone: missing {result.missing_keys[:5]}, "
                f'unexpected {result.unexpected_keys[:5]}: another arch or VAE?'
            )
        MMLogger.get_current_instance().info(
            f'{len(weights) - len(result.unexpected_keys)} tensors from {self.checkpoint}; '
            f'new: {result.missing_keys or "none"}; left over: {result.unexpected_keys or "none"}'
        )
