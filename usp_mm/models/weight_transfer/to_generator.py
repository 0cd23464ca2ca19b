"""Transfer of a pretrained encoder to DiT or SiT (USP, arXiv 2503.06132, section 2.3 and Tables 8a, 8b, 8g, 9)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from usp_mm.functional.pos_embed import resize_pos_embed
from usp_mm.presets import ARCHS, nearest

from .encoder import block_part, check_blocks, square_side
from .report import Grid, TransferReport

INTERPOLATIONS = ('bicubic', 'bilinear')
_PATCH_CONV = 'patch_embed.proj.'
_NORMS = ('norm1', 'norm2')
_BLOCK_PARTS = (*_NORMS, 'attn', 'mlp')
#: Tensors that a generator does not use: class token, final norms, decoder and heads of the flat official checkpoints.
_ENCODER_ONLY = ('cls_token', 'norm.', 'fc_norm.', 'mask_token', 'decoder_', 'head.')


@dataclass(frozen=True)
class _Selection:
    """The names of an encoder's tensors that are to be copied."""

    blocks: frozenset[int]
    parts: tuple[str, ...]
    patch_embed: bool
    pos_embed: bool

    def __contains__(self, name: str) -> bool:
        block = block_part(name)
        if block:
            return block[0] in self.blocks and block[1] in self.parts
        return (self.patch_embed and name.startswith(_PATCH_CONV)) or (self.pos_embed and name == 'pos_embed')


def transfer_encoder(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    keep_layers: int | Sequence[int] | None = None,
    load_norms: bool = True,
    load_patch_embed: bool = True,
    load_pos_embed: bool = True,
    pos_interp: str = 'bicubic',
) -> TransferReport:
    """Copy a ViT encoder into a DiT or SiT in place; nothing is copied unless everything fits.

    PatchConv becomes `x_embedder`, the blocks keep their names, and the position table is resized without its class token.
    Class token, final norms, decoder and heads are dropped. Modulation, time and label embedding and the final layer keep
    their initialisation. An EMA copy is not changed, so create it afterwards.

    Args:
        module: A network with the official names (`x_embedder`, `pos_embed` [1, L, D], `blocks`) and `geometry.grid`.
        weights: Weights with official names and no prefix; a whole official checkpoint is allowed.
        keep_layers: Number n, to copy the first n blocks, or a list of the blocks' numbers; the others stay random (Table 8g).
            None copies all blocks and requires equal depth.
        load_norms: Whether to copy scale and shift of norm1 and norm2. A model without them (`norm_affine=False`, Table 8b)
            drops them in any case.
        load_patch_embed: Whether to copy PatchConv. It must be False for the pixel MAE of Table 8a, whose shape differs.
        load_pos_embed: Whether to copy the position table; otherwise the model keeps its own sine-cosine table.
        pos_interp: Interpolation of the position table, 'bicubic' (14 to 16 tokens per side at 256 px) or 'bilinear' (16 to
            32 at 512 px).

    Returns:
        A report on every tensor of both sides.

    Raises:
        ValueError: An argument is out of range; depth or kind of the blocks differ; tensors are missing, unknown or of the
            wrong shape; the position table is not for a square of tokens; or no learned tensor is left to copy.
    """
    check_interpolation(pos_interp)
    target = module.state_dict()
    _check_sizes(weights, target, any_depth=keep_layers is not None)
    check_blocks(weights, target, norms=load_norms)
    blocks = _kept_blocks(keep_layers, _depth(weights), _depth(target))
    affine = 'blocks.0.norm1.weight' in target
    parts = _BLOCK_PARTS if load_norms and affine else tuple(part for part in _BLOCK_PARTS if part not in _NORMS)
    selection = _Selection(blocks, parts, load_patch_embed, load_pos_embed)

    places = {name.replace('x_embedder.', 'patch_embed.'): name for name in target}
    wanted = [name for name in places if name in selection]
    _check_names(weights, wanted, selection)
    taken = {places[name]: weights[name] for name in wanted}
    resized = {}
    if load_pos_embed:
        geometry: Any = module.geometry
        taken['pos_embed'], old = _fit_table(weights['pos_embed'], geometry.grid, pos_interp)
        if old != geometry.grid:
            resized['pos_embed'] = (old, geometry.grid)
    _check_shapes(taken, target)

    random = module.load_state_dict(taken, strict=False).missing_keys
    dropped = weights.keys() - set(wanted)
    return TransferReport(tuple(sorted(taken)), resized, tuple(sorted(dropped)), tuple(sorted(random)))


def check_interpolation(mode: str) -> None:
    """Raise a ValueError unless `mode` is one of `INTERPOLATIONS`."""
    if mode not in INTERPOLATIONS:
        raise ValueError(f"pos_interp='{mode}' must be one of {INTERPOLATIONS}{nearest(mode, INTERPOLATIONS)}")


def _depth(state_dict: Mapping[str, Tensor]) -> int:
    return 1 + max((block[0] for block in map(block_part, state_dict) if block), default=-1)


def _width(state_dict: Mapping[str, Tensor]) -> int | None:
    proj = state_dict.get('blocks.0.attn.proj.weight')
    return None if proj is None else proj.shape[0]


def _check_sizes(weights: Mapping[str, Tensor], target: Mapping[str, Tensor], any_depth: bool) -> None:
    """Check depth and width before all names, since with another arch everything else would differ too."""
    if not _depth(weights):
        raise ValueError(f"no 'blocks.…' in the checkpoint, whose names begin with {sorted(weights)[:5]}: not a ViT encoder")
    same_width = _width(weights) in (None, _width(target))
    if same_width and (any_depth or _depth(weights) == _depth(target)):
        return
    common = min(_depth(weights), _depth(target))
    or_keep = f', or take the first {common} with keep_layers={common}' if same_width else ''
    raise ValueError(f'the checkpoint has {_size(weights)}, the model {_size(target)}: make arch agree{or_keep}')


def _size(state_dict: Mapping[str, Tensor]) -> str:
    """'12 blocks of width 768 (arch 'base')'"""
    depth, width = _depth(state_dict), _width(state_dict)
    arch = next((name for name, row in ARCHS.items() if (row['depth'], row['embed_dims']) == (depth, width)), None)
    return f'{depth} blocks of width {width}' + (f" (arch '{arch}')" if arch else '')


def _kept_blocks(keep_layers: int | Sequence[int] | None, theirs: int, ours: int) -> frozenset[int]:
    common, both = min(theirs, ours), f'the checkpoint has {theirs} blocks, the model {ours}'
    if keep_layers is None:
        return frozenset(range(common))
    if type(keep_layers) is int:
        if not 0 <= keep_layers <= common:
            raise ValueError(f'keep_layers={keep_layers} must lie in 0 … {common}: {both}')
        return frozenset(range(keep_layers))
    if not isinstance(keep_layers, Sequence):
        raise ValueError(f'keep_layers={keep_layers!r} must be None, a number of blocks or a list of their numbers')
    for index in keep_layers:
        if type(index) is not int or not 0 <= index < common:
            raise ValueError(f'keep_layers={list(keep_layers)}: {index!r} is not a block from 0 to {common - 1}: {both}')
    return frozenset(keep_layers)


def _check_names(weights: Mapping[str, Tensor], wanted: list[str], selection: _Selection) -> None:
    missing = [name for name in wanted if name not in weights]
    if missing:
        raise ValueError(
            f'the checkpoint lacks {missing[:5]} ({len(missing)} tensors of the {len(wanted)} to take): '
            "not an encoder of this family (USP, MAE, timm's ViT with qkv bias)?"
        )
    unknown = [name for name in weights if not _is_known(name) or (name in selection and name not in wanted)]
    if unknown:
        raise ValueError(
            f'the checkpoint has {sorted(unknown)[:5]} ({len(unknown)} tensors), which no DiT or SiT has a place for: '
            'another kind of ViT (layer scale, query norms, register tokens)?'
        )
    if not any(name != 'pos_embed' for name in wanted):
        raise ValueError('keep_layers and load_patch_embed leave nothing learned to take: use init_cfg=None instead')


def _is_known(name: str) -> bool:
    block = block_part(name)
    if block:
        return block[1] in _BLOCK_PARTS
    return name == 'pos_embed' or name.startswith((_PATCH_CONV, *_ENCODER_ONLY))


def _fit_table(table: Tensor, grid: Grid, mode: str) -> tuple[Tensor, Grid]:
    """Position table [1, 1 + s·s, D] -> the table of the patch tokens resized to `grid`, [1, L, D], and (s, s)."""
    side = square_side(table) if table.ndim == 3 else None
    if not side:
        raise ValueError(
            f"the checkpoint's pos_embed is {list(table.shape)}, expected [1, 1 + s*s, D]: a class token and a square of "
            f"patch tokens, so it can't be resized to {grid[0]}x{grid[1]}; load_pos_embed=False keeps the sine-cosine table"
        )
    return resize_pos_embed(table[:, 1:], (side, side), grid, mode, num_prefix=0), (side, side)


def _check_shapes(taken: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
    for name, value in taken.items():
        theirs, ours = list(value.shape), list(target[name].shape)
        if theirs == ours:
            continue
        if name.startswith('x_embedder.'):
            raise ValueError(
                f"the checkpoint's PatchConv is {theirs}, the model's {name} {ours}: another VAE or patch size; make vae and "
                'patch_size agree, or leave PatchConv random with load_patch_embed=False (Table 8a)'
            )
        raise ValueError(f'the checkpoint has {theirs} for {name}, the model {ours}: make arch agree')
