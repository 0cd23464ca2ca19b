"""Functions that find the encoder in a checkpoint, compare its blocks and resize its position table."""

import re
from collections.abc import Iterable, Mapping
from math import isqrt

from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.functional.pos_embed import resize_pos_embed
from usp_mm.presets import BLOCKS

#: Beginnings of an encoder's names, after this package's prefix if there is one.
ENCODER_KEYS = ('cls_token', 'pos_embed', 'patch_embed.', 'blocks.', 'norm.', 'fc_norm.')


def split_checkpoint(state_dict: Mapping[str, Tensor], prefix: str = 'backbone.') -> tuple[dict[str, Tensor], list[str]]:
    """Split a checkpoint into (weights of the module with the encoder, without `prefix`; all other names).

    This package's checkpoints keep the encoder under `prefix`. Official ones are a single flat module, so that decoder or head
    belong to the first part.

    Raises:
        ValueError: The checkpoint has no encoder.
    """
    if prefix + 'cls_token' in state_dict:
        module = {name[len(prefix) :]: value for name, value in state_dict.items() if name.startswith(prefix)}
        return module, [name for name in state_dict if not name.startswith(prefix)]
    if 'cls_token' in state_dict:
        return dict(state_dict), []
    raise ValueError(
        f"no encoder in the checkpoint: neither '{prefix}cls_token' nor 'cls_token' among {sorted(state_dict)[:5]}…"
    )


def encoder_weights(state_dict: Mapping[str, Tensor], prefix: str = 'backbone.') -> dict[str, Tensor]:
    """The encoder's weights in a checkpoint with this package's names (under `prefix`) or official names (no prefix).

    Raises:
        ValueError: The checkpoint has no encoder.
    """
    module, _ = split_checkpoint(state_dict, prefix)
    flat = prefix + 'cls_token' not in state_dict
    return {name: value for name, value in module.items() if not flat or name.startswith(ENCODER_KEYS)}


def block_part(name: str) -> tuple[int, str] | None:
    """Number and part of a block in a name, such as (3, 'attn') in 'blocks.3.attn.qkv.weight'; None for other names."""
    match = re.match(r'blocks\.(\d+)\.(\w+)\.', name)
    return (int(match[1]), match[2]) if match else None


def check_blocks(weights: Mapping[str, Tensor], target: Mapping[str, Tensor], norms: bool = True) -> None:
    """Raise a ValueError if the blocks of two networks differ in kind. Rotary positions, without weights, can't be compared.

    Args:
        weights: Weights in the checkpoint.
        target: Weights of the model.
        norms: Whether to compare the kind of norm too.
    """
    theirs, ours = _block_parts(weights), _block_parts(target)
    differing = [part for part in theirs.keys() & ours.keys() if theirs[part] != ours[part] and (norms or part != 'norm')]
    if differing:
        kinds = [', '.join(f'{part}={found[part]!r}' for part in sorted(differing)) for found in (theirs, ours)]
        raise ValueError(
            f'the checkpoint has blocks with {kinds[0]}, the model with {kinds[1]}: give both the same `block` '
            f'({" or ".join(BLOCKS)}, or options)'
        )


def _block_parts(names: Iterable[str]) -> dict[str, str | bool]:
    """The options of `usp_mm.layers.BlockOptions` that follow from the names in the first block."""
    has = {name.removeprefix('blocks.0.') for name in names if name.startswith('blocks.0.')}
    found: dict[str, str | bool] = {}
    if {'mlp.w12.weight', 'mlp.fc1.weight'} & has:
        found['mlp'] = 'swiglu' if 'mlp.w12.weight' in has else 'gelu'
    if 'norm1.weight' in has:
        found['norm'] = 'layer' if 'norm1.bias' in has else 'rms'
    if 'attn.qkv.weight' in has:
        found['qk_norm'] = 'attn.q_norm.weight' in has
    return found


def square_side(table: Tensor) -> int | None:
    """The side s of a position table with class token, [1, 1 + s·s, D]; None if the tokens form no square."""
    tokens = table.shape[1] - 1
    side = isqrt(tokens)
    return side if side * side == tokens else None


def fit_pos_embed(table: Tensor, grid: tuple[int, int], mode: str) -> Tensor:
    """Resize a position table with class token, [1, 1 + s·s, D], to `grid`; a table that is not square is not changed."""
    side = square_side(table)
    if side is None or (side, side) == grid:
        return table
    MMLogger.get_current_instance().info(f'position table {side}x{side} resized to {grid[0]}x{grid[1]} ({mode})')
    return resize_pos_embed(table, (side, side), grid, mode)
