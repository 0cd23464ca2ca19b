"""Check that names and shapes are those of a complete network of their kind, before anything is written."""

import re

from .kinds import KINDS, LIGHTNING_PARTS, Shapes

_SHOWN = 4
_WB = ('weight', 'bias')
_REQUIRED = {
    'encoder': (
        'cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias',
        *(f'blocks.0.{part}.{x}' for part in ('attn.qkv', 'attn.proj') for x in _WB),
        'blocks.0.norm1.weight', 'blocks.0.norm2.weight',
    ),
    'denoiser': (
        'pos_embed', 'y_embedder.embedding_table.weight',
        *(f'{part}.{x}' for part in ('x_embedder.proj', 't_embedder.mlp.0', 't_embedder.mlp.2') for x in _WB),
        *(f'blocks.0.{part}.{x}' for part in ('attn.qkv', 'attn.proj', 'adaLN_modulation.1') for x in _WB),
        *(f'final_layer.{part}.{x}' for part in ('linear', 'adaLN_modulation.1') for x in _WB),
    ),
}  # fmt: skip
#: Expected sizes; a letter stands for a size that can be anything.
Pattern = tuple[int | str, ...]
_STACK = re.compile(r'((?:decoder_)?blocks)\.(\d+)\.(.+)')


def check_network(shapes: Shapes, kind: str, family: str) -> None:
    """Check that all names belong to the kind, that none is missing, and that the shapes of all blocks fit together.

    Args:
        shapes: Shapes by official name, without prefix.
        kind: A key of `KINDS`; 'usp_mm' may hold the names of every kind of its family.
        family: 'encoder' or 'denoiser'.

    Raises:
        ValueError: The check fails; the message names the tensors and their shapes.
    """
    patterns = [row.names for row in KINDS.values() if row.family == family] if kind == 'usp_mm' else [KINDS[kind].names]
    allowed = re.compile('|'.join(patterns))
    unknown = [name for name in shapes if not allowed.fullmatch(name)]
    if kind == 'usp_mm':  # its encoders may also consist of LightningDiT's blocks
        unknown = [name for name in unknown if not LIGHTNING_PARTS.match(name.removeprefix('decoder_'))]
    missing = [name for name in _REQUIRED[family] if name not in shapes]
    if not any(name.startswith(('blocks.0.mlp.fc1.', 'blocks.0.mlp.w12.')) for name in shapes):
        missing.append('blocks.0.mlp.fc1.weight')
    for norm, other in (('norm1', 'norm2'), ('norm2', 'norm1')):
        absent = [f'blocks.0.{other}.{x}' for x in _WB if f'blocks.0.{norm}.{x}' in shapes]
        missing += [name for name in absent if name not in shapes and name not in missing]
    wrong = _wrong_shapes(shapes, family) if not missing else []
    faults = [
        f'{len(found)} {what}: {", ".join(found[:_SHOWN])}{", …" if len(found) > _SHOWN else ""}'
        for what, found in (
            ('unknown', [f'{name} {list(shapes[name])}' for name in unknown]),
            ('missing', missing + _missing_in_blocks(shapes)),
            ('of another shape', wrong),
        )
        if found
    ]
    if faults:
        raise ValueError(f'not {KINDS[kind].description} ({kind}): {"; ".join(faults)}')


def _stacks(shapes: Shapes) -> dict[str, dict[int, dict[str, tuple[int, ...]]]]:
    """Shapes in the blocks: 'blocks' or 'decoder_blocks' -> number of the block -> name within the block -> shape."""
    stacks: dict[str, dict[int, dict[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        if match := _STACK.fullmatch(name):
            stacks.setdefault(match[1], {}).setdefault(int(match[2]), {})[match[3]] = shape
    return stacks


def _missing_in_blocks(shapes: Shapes) -> list[str]:
    """Names that are missing in a block although another block of the same stack has them."""
    missing = []
    for stack, blocks in _stacks(shapes).items():
        names = dict.fromkeys(name for block in blocks.values() for name in block)
        for i in range(max(blocks) + 1):
            missing += [f'{stack}.{i}.{name}' for name in names if name not in blocks.get(i, {})]
    return missing


def _wrong_shapes(shapes: Shapes, family: str) -> list[str]:
    width = (*shapes['blocks.0.attn.proj.weight'], 0)[0]
    expected = _of_width(width) | _tables(shapes, family, width)
    for stack, blocks in _stacks(shapes).items():
        first = blocks.get(0, {})
        own = (*first.get('attn.proj.weight', ()), 0)[0]
        expected |= {f'{stack}.0.{name}': shape for name, shape in _block(own).items()}
        expected |= {f'{stack}.{i}.{name}': first[name] for i, block in blocks.items() if i for name in block if name in first}
    return [
        f'{name} {list(shapes[name])} instead of [{", ".join(map(str, shape))}]'
        for name, shape in expected.items()
        if name in shapes and not _fits(shapes[name], shape)
    ]


def _fits(shape: tuple[int, ...], expected: Pattern) -> bool:
    return len(shape) == len(expected) and all(isinstance(b, str) or a == b for a, b in zip(shape, expected, strict=True))


def _block(width: int) -> dict[str, Pattern]:
    """Expected shapes in a transformer block."""
    return {
        'attn.qkv.weight': (3 * width, width), 'attn.qkv.bias': (3 * width,), 'attn.proj.weight': (width, width),
        'mlp.fc1.weight': ('H', width), 'mlp.fc2.weight': (width, 'H'), 'mlp.w12.weight': ('2H', width),
        'mlp.w3.weight': (width, 'H'), 'adaLN_modulation.1.weight': ('6D', width),
        **{f'{part}.{x}': (width,) for part in ('norm1', 'norm2') for x in _WB},
        **{f'{part}.bias': (width,) for part in ('attn.proj', 'mlp.fc2', 'mlp.w3')},
    }  # fmt: skip


def _of_width(width: int) -> dict[str, Pattern]:
    """Expected shapes outside of the blocks, for all kinds."""
    return {
        'cls_token': (1, 1, width), 'head.weight': ('classes', width), 'head.1.weight': ('classes', width),
        't_embedder.mlp.0.weight': (width, 'F'), 't_embedder.mlp.2.weight': (width, width),
        'y_embedder.embedding_table.weight': ('classes', width), 'final_layer.linear.weight': ('PPC', width),
        'final_layer.adaLN_modulation.1.weight': ('2D', width), 'decoder_embed.weight': ('E', width),
        **{f'{part}.{x}': (width,) for part in ('norm', 'fc_norm', 'final_layer.norm_final') for x in _WB},
        **{f'{part}.bias': (width,) for part in ('t_embedder.mlp.0', 't_embedder.mlp.2')},
        **{f'{part}.proj.weight': (width, 'C', 'P', 'P') for part in ('patch_embed', 'x_embedder')},
        **{f'{part}.proj.bias': (width,) for part in ('patch_embed', 'x_embedder')},
    }  # fmt: skip


def _tables(shapes: Shapes, family: str, width: int) -> dict[str, Pattern]:
    """Expected shape of the position table. An encoder's has a row for the class token before the square of patches."""
    shape = shapes['pos_embed']
    rows: int | str = shape[1] if len(shape) == 3 else 'N'
    if family == 'encoder' and len(shape) == 3:
        rows = 1 + round(max(shape[1] - 1, 0) ** 0.5) ** 2
    return {'pos_embed': (1, rows, width)}


def describe(shapes: Shapes) -> str:
    """Summary of the settings that a config needs and that follow from shapes (number of heads and activation do not)."""
    depth = 1 + max(_stacks(shapes)['blocks'])
    proj = shapes.get('x_embedder.proj.weight') or shapes['patch_embed.proj.weight']
    text = f'{depth} blocks of width {proj[0]}, patch {proj[2]} on {proj[1]} channels, pos_embed {list(shapes["pos_embed"])}'
    if 'final_layer.linear.weight' in shapes:
        out = shapes['final_layer.linear.weight'][0] // proj[2] ** 2
        rows = shapes['y_embedder.embedding_table.weight'][0]
        text += f', {out} output channels (learn_sigma={out == 2 * proj[1]}), {rows} rows of classes and "no class"'
        text += f', norm_affine={"blocks.0.norm1.weight" in shapes}'
    return text
