"""DiT in diffusers' format: names, config and the folder of a `DiTPipeline`."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usp_mm.fileio.atomic import read_json
from usp_mm.fileio.weights import read_checkpoint
from usp_mm.functional.pos_embed import sincos_table
from usp_mm.models.weight_transfer.encoder import square_side
from usp_mm.presets import ARCHS

from .conversion_data import Entries, Entry, shapes_of

WEIGHTS = 'diffusion_pytorch_model'
#: Official name of a layer -> diffusers' name, outside and inside of blocks. diffusers has separate layers for q, k and v.
_LAYERS = {
    'x_embedder.proj': 'pos_embed.proj',
    'final_layer.adaLN_modulation.1': 'proj_out_1',
    'final_layer.linear': 'proj_out_2',
}
_BLOCK = {
    'adaLN_modulation.1': 'norm1.linear',
    'attn.proj': 'attn1.to_out.0',
    'mlp.fc1': 'ff.net.0.proj',
    'mlp.fc2': 'ff.net.2',
}
#: Embedders, of which every block has its own copy in diffusers.
_EMBEDDERS = {
    't_embedder.mlp.0': 'norm1.emb.timestep_embedder.linear_1',
    't_embedder.mlp.2': 'norm1.emb.timestep_embedder.linear_2',
    'y_embedder.embedding_table': 'norm1.emb.class_embedder.embedding_table',
}
_WB = ('weight', 'bias')
_QKV = ('attn1.to_q', 'attn1.to_k', 'attn1.to_v')
#: (depth, width) -> number of heads in the presets, used if it is not given.
_HEADS = {(row['depth'], row['embed_dims']): row['num_heads'] for row in ARCHS.values()}
#: Largest difference from the sine-cosine table that counts as rounding.
TABLE_TOLERANCE = 1e-6


# ---------------------------------------------------------------------- read


def read_diffusers_folder(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read weights and config of the transformer in the folder of a `DiTPipeline` or of a single `DiTTransformer2DModel`.

    Raises:
        FileNotFoundError: There is no config, or there are no weights.
        ValueError: The folder holds another class, or a file that is not data.
    """
    folder = path / 'transformer' if (path / 'transformer').is_dir() else path
    if not (folder / 'config.json').is_file():
        raise FileNotFoundError(f"'{path}' holds neither transformer/config.json nor config.json: not a DiT of diffusers")
    config = _json(folder / 'config.json')
    # facebook/DiT-XL-2-256 names the class as it was called when the model was saved
    if config.get('_class_name') not in ('DiTTransformer2DModel', 'Transformer2DModel'):
        raise ValueError(f"'{folder}' is a diffusers '{config.get('_class_name')}', expected a DiTTransformer2DModel")
    expected = {'norm_type': 'ada_norm_zero', 'norm_elementwise_affine': False, 'attention_bias': True}
    for key, value in expected.items():
        if config.get(key, value) != value:
            raise ValueError(f"'{folder}': {key}={config[key]!r} is no DiT, which has {value!r}")
    return _folder_weights(folder), config


def _folder_weights(folder: Path) -> dict[str, Tensor]:
    index = folder / f'{WEIGHTS}.safetensors.index.json'
    files = sorted(set(_json(index).get('weight_map', {}).values())) if index.is_file() else []
    if any(Path(name).name != name for name in files):
        raise ValueError(f"'{index}' names files outside of its folder")
    if not files:
        files = [name for name in (f'{WEIGHTS}.safetensors', f'{WEIGHTS}.bin') if (folder / name).is_file()][:1]
    if not files:
        raise FileNotFoundError(f"'{folder}' holds no {WEIGHTS}.safetensors or .bin")
    weights: dict[str, Tensor] = {}
    for name in files:
        weights |= read_checkpoint(folder / name, mmap=True)
    return weights


def _json(file: Path) -> dict[str, Any]:
    return read_json(file, 'copy it again') or {}


def _move(left: Entries, old: str, result: Entries, new: str) -> None:
    """Move those tensors of a layer that exist to the layer's new name."""
    for kind in _WB:
        if f'{old}.{kind}' in left:
            result[f'{new}.{kind}'] = left.pop(f'{old}.{kind}')


def from_diffusers(entries: Entries, config: dict[str, Any], notes: list[str]) -> Entries:
    """Convert diffusers' weights to official names. The position table, which diffusers does not save, is computed.

    Args:
        entries: Weights under diffusers' names.
        config: diffusers' config of the transformer.
        notes: List to which notes for the user are added.

    Raises:
        ValueError: A name is not one of DiT, or blocks have different copies of an embedder.
    """
    left = dict(entries)
    depth = 1 + max((int(m[1]) for m in (re.match(r'transformer_blocks\.(\d+)\.', name) for name in left) if m), default=-1)
    result: Entries = {}
    for ours, theirs in _LAYERS.items():
        _move(left, theirs, result, ours)
    for i in range(depth):
        for ours, theirs in _BLOCK.items():
            _move(left, f'transformer_blocks.{i}.{theirs}', result, f'blocks.{i}.{ours}')
        for kind in _WB:
            parts = [left.pop(f'transformer_blocks.{i}.{name}.{kind}', None) for name in _QKV]
            if present := [x for x in parts if x is not None]:
                if len(present) < len(parts):
                    raise ValueError(f'transformer_blocks.{i} has not all of {", ".join(f"{name}.{kind}" for name in _QKV)}')
                sources = tuple(source for x in present for source in x.sources)
                result[f'blocks.{i}.attn.qkv.{kind}'] = Entry(torch.cat([x.value for x in present]), sources)
    for ours, theirs in _EMBEDDERS.items():
        for kind in _WB:
            if copies := [left.pop(name) for i in range(depth) if (name := f'transformer_blocks.{i}.{theirs}.{kind}') in left]:
                result[f'{ours}.{kind}'] = _one(copies, depth)
    if left:
        shown = ', '.join(f'{name} {list(entry.value.shape)}' for name, entry in list(left.items())[:4])
        raise ValueError(f"{len(left)} tensors that are none of diffusers' DiT: {shown}")
    _note_differences(config, notes)
    _add_table(result, config)
    return result


def _one(copies: list[Entry], depth: int) -> Entry:
    """The single tensor of which every block has a copy; ValueError if the copies differ or some are missing."""
    for entry in copies:
        if entry.value.shape != copies[0].value.shape or not torch.equal(entry.value, copies[0].value):
            raise ValueError(f'{entry.sources[0]} differs from {copies[0].sources[0]}: DiT has one for all blocks')
    if len(copies) != depth:
        raise ValueError(f'{copies[0].sources[0]}: {len(copies)} blocks of {depth} have it')
    return Entry(copies[0].value, tuple(source for entry in copies for source in entry.sources))


def _note_differences(config: dict[str, Any], notes: list[str]) -> None:
    if config.get('activation_fn', 'gelu-approximate') != 'gelu-approximate':
        notes.append(f"activation_fn={config['activation_fn']!r}: give the denoiser act='gelu' if that is what it means")
    if config.get('norm_eps', 1e-5) != 1e-6:
        notes.append(f"diffusers' norm_eps is {config.get('norm_eps', 1e-5)} before the MLPs, DiT's and this package's 1e-6")


def _add_table(result: Entries, config: dict[str, Any]) -> None:
    proj = result.get('x_embedder.proj.weight')
    if proj is not None:
        grid = int(config.get('sample_size', 32)) // proj.value.shape[-1]
        result['pos_embed'] = Entry(sincos_table(proj.value.shape[0], (grid, grid))[None].float(), ())


# ---------------------------------------------------------------------- write


def to_diffusers(entries: Entries) -> Entries:
    """The inverse of `from_diffusers`, without the position table. Norms must have no weights.

    Raises:
        ValueError: diffusers' DiT has no place for a tensor.
    """
    check_table(entries['pos_embed'].value)
    depth = 1 + max(int(m[1]) for m in (re.match(r'blocks\.(\d+)\.', name) for name in entries) if m)
    result: Entries = {}
    left = {name: entry for name, entry in entries.items() if name != 'pos_embed'}
    for ours, theirs in _LAYERS.items():
        _move(left, ours, result, theirs)
    for i in range(depth):
        for ours, theirs in _BLOCK.items():
            _move(left, f'blocks.{i}.{ours}', result, f'transformer_blocks.{i}.{theirs}')
        for kind in _WB:
            qkv = left.pop(f'blocks.{i}.attn.qkv.{kind}')
            for theirs, value in zip(_QKV, qkv.value.chunk(3), strict=True):
                result[f'transformer_blocks.{i}.{theirs}.{kind}'] = Entry(value, qkv.sources, qkv.how)
        for ours, theirs in _EMBEDDERS.items():
            for kind in _WB:
                if f'{ours}.{kind}' in left:
                    result[f'transformer_blocks.{i}.{theirs}.{kind}'] = left[f'{ours}.{kind}']
    left = {name: entry for name, entry in left.items() if not name.startswith(tuple(_EMBEDDERS))}
    if left:
        shown = ', '.join(f'{name} {list(entry.value.shape)}' for name, entry in list(left.items())[:4])
        raise ValueError(f"diffusers' DiT has no place for {len(left)} tensors (RMSNorm, SwiGLU, query norms?): {shown}")
    return result


def check_table(table: Tensor) -> None:
    """Raise a ValueError unless a table [1, L, D] is the sine-cosine table, which diffusers computes instead of loading."""
    side = square_side(torch.empty(1, table.shape[1] + 1, 0))
    if side is None:
        raise ValueError(f'pos_embed {list(table.shape)} is of no square of tokens, which is all that diffusers has')
    off = float((table.double() - sincos_table(table.shape[2], (side, side))[None]).abs().max())
    if off > TABLE_TOLERANCE:
        raise ValueError(
            f'pos_embed {list(table.shape)} differs from the sine-cosine table by up to {off:.2g}, and diffusers computes that '
            'table instead of reading one: only networks trained with it (init_cfg.load_pos_embed=False) fit'
        )


def transformer_config(entries: Entries, num_heads: int | None, num_classes: int | None, known_classes: int = 0) -> dict:
    """Arguments of `DiTTransformer2DModel` for official weights.

    Args:
        entries: Weights under official names.
        num_heads: Number of attention heads, which shapes do not show; None looks up depth and width in the presets.
        num_classes: Number of classes; by default one less than the rows of the label embedding.
        known_classes: Number of classes in the training data if the checkpoint records it, else 0.

    Raises:
        ValueError: The number of heads is unknown or does not divide the width, or the label embedding has no "no class".
    """
    shapes = shapes_of(entries)
    width, channels, patch, _ = shapes['x_embedder.proj.weight']
    depth = 1 + max(int(m[1]) for m in (re.match(r'blocks\.(\d+)\.', name) for name in shapes) if m)
    rows = shapes['y_embedder.embedding_table.weight'][0]
    if num_classes is None and known_classes in (rows, rows - 1):
        num_classes = known_classes
    if num_classes is None and rows == 1000:
        raise ValueError(
            'y_embedder.embedding_table.weight has 1000 rows: 1000 classes without "no class", or 999 with it? Give num_classes'
        )
    if num_classes is not None and num_classes != rows - 1:
        raise ValueError(
            f"y_embedder.embedding_table.weight has {rows} rows for num_classes={num_classes}: diffusers' DiT has a row more "
            'than classes, for "no class", and this network was trained without (class_dropout=0)'
        )
    num_heads = _HEADS.get((depth, width)) if num_heads is None else num_heads
    if num_heads is None or num_heads < 1 or width % num_heads:
        raise ValueError(f'{depth} blocks of width {width}, num_heads={num_heads}: give num_heads, a divisor of the width')
    return dict(
        num_attention_heads=num_heads,
        attention_head_dim=width // num_heads,
        in_channels=channels,
        out_channels=shapes['final_layer.linear.weight'][0] // patch**2,
        num_layers=depth,
        sample_size=int(shapes['pos_embed'][1] ** 0.5 + 0.5) * patch,
        patch_size=patch,
        activation_fn='gelu-approximate',
        num_embeds_ada_norm=rows - 1,
        norm_eps=1e-6,
    )
