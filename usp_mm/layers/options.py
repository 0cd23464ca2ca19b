"""The parts of a transformer block, chosen by a preset or one by one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from usp_mm.presets import BLOCKS, lookup, nearest

from .norm import NORMS, LayerNorm, RMSNorm

MLPS = ('gelu', 'swiglu')


@dataclass(frozen=True)
class BlockOptions:
    """The parts of a block; the fields are the columns of `usp_mm.presets.BLOCKS`.

    Attributes:
        norm: 'layer' (LayerNorm) or 'rms' (RMSNorm).
        mlp: 'gelu' (the model decides between exact and approximate GELU) or 'swiglu'.
        rope: Whether to rotate queries and keys by the row and column of their token.
        qk_norm: Whether to normalise the queries and keys of each head, by the same kind of norm.

    Raises:
        ValueError: An attribute has another value.
    """

    norm: str = 'layer'
    mlp: str = 'gelu'
    rope: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        lookup(NORMS, self.norm, 'block norm')
        lookup(dict.fromkeys(MLPS), self.mlp, 'block mlp')
        for name in ('rope', 'qk_norm'):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f'block {name}={getattr(self, name)!r} must be True or False')

    @property
    def norm_layer(self) -> type[LayerNorm | RMSNorm]:
        """The class of the norm, called as `(width, elementwise_affine=True)`."""
        return NORMS[self.norm]


PLAIN = BlockOptions()


def block_options(block: str | Mapping) -> BlockOptions:
    """Options of a preset in `usp_mm.presets.BLOCKS`, or of a dict(preset='plain', option=value, …) that changes some of them.

    Raises:
        ValueError: The preset, an option or a value is unknown.
    """
    if isinstance(block, str):
        return BlockOptions(**lookup(BLOCKS, block, 'block'))
    if not isinstance(block, Mapping):
        raise ValueError(f'block={block!r} must be one of {sorted(BLOCKS)}, or a dict of options')
    names = ['preset', *(field.name for field in fields(BlockOptions))]
    for key in block:
        if key not in names:
            raise ValueError(f"unknown block option '{key}': expected {names}{nearest(key, names)}")
    options = dict(block)
    return BlockOptions(**{**asdict(block_options(options.pop('preset', 'plain'))), **options})
