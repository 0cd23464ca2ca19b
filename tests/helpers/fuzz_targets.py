"""Parsers of files and options, and inputs near valid ones to fuzz them with (hypothesis draws them).

A target has a strategy of inputs and a function that parses one. The function may return or raise one of `EXPECTED` with one
line; anything else is a fault.
"""

import argparse
import io
import json
import math
import random
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save

EXPECTED = (ValueError, FileNotFoundError)
#: Seconds that one input may take.
LIMIT = 10
_LONGEST = 2000
_EDGES = [0, 1, 127, 128, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]


@dataclass(frozen=True)
class Target:
    """A parser: what `inputs` draws, `parse` reads."""

    inputs: st.SearchStrategy
    parse: Callable[[Any], object]


def attempt(target: Target, value: Any) -> str | None:
    """Parse one input; what is wrong with the outcome, or None."""
    try:
        with time_limit(), warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter('ignore')
            target.parse(value)
    except EXPECTED as error:
        text = str(error)
        return (
            None
            if text and '\n' not in text and len(text) <= _LONGEST
            else f'{type(error).__name__} of {len(text)}: {text[:200]}'
        )
    except TooLong:
        return f'took more than {LIMIT} s'
    except Exception as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        where = '' if trace is None else f' at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}'
        return f'{type(error).__name__}{where}: {str(error)[:200]}'
    return None


class TooLong(BaseException):
    """Raised in the parser after `LIMIT` seconds."""


@contextmanager
def time_limit() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@st.composite
def damaged(draw: Any, seeds: list[bytes]) -> bytes:
    """One of the seeds with up to 8 bits flipped, bytes or numbers replaced, parts cut, doubled or put in."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(('flip', 'byte', 'number', 'cut', 'remove', 'double', 'insert')))
        if kind == 'flip' and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == 'byte' and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == 'number':
            size = draw(st.sampled_from((1, 2, 4, 8)))
            number = draw(st.sampled_from(_EDGES)) % 256**size
            content[place : place + size] = number.to_bytes(size, draw(st.sampled_from(('little', 'big'))))
        elif kind == 'cut' and draw(st.integers(0, 3)) == 0:
            del content[place:]
        elif kind == 'remove':
            del content[place : place + draw(st.integers(1, 16))]
        elif kind == 'double':
            content[place:place] = content[place : place + draw(st.integers(1, 64))]
        elif kind == 'insert':
            content[place:place] = draw(st.binary(min_size=1, max_size=8))
    return bytes(content)


@st.composite
def damaged_archive(draw: Any, seeds: list[bytes]) -> bytes:
    """A zip archive with right checksums, one of whose members is `damaged`, missing, twice there or under another name."""
    with zipfile.ZipFile(io.BytesIO(draw(st.sampled_from(seeds)))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    chosen = draw(st.sampled_from(sorted(members)))
    kind = draw(st.sampled_from(('damage', 'damage', 'damage', 'drop', 'rename', 'twice')))
    content = members.pop(chosen)
    if kind == 'damage':
        members[chosen] = draw(damaged([content]))
    elif kind == 'rename':
        members[draw(st.text('ab/.ä中', min_size=1, max_size=8))] = content
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, 'w', draw(st.sampled_from((0, 8)))) as archive:
        warnings.simplefilter('ignore')  # of two members of one name
        for name, value in members.items():
            archive.writestr(name, value)
        for _ in range(2 * (kind == 'twice')):
            archive.writestr(chosen, content)
    return out.getvalue()


def checkpoints(folder: Path) -> Target:
    """Files of torch.save, old and new, and safetensors."""
    state = {'a.weight': torch.arange(24.0).reshape(4, 6), 'b': torch.ones(3, dtype=torch.bfloat16)}
    content = dict(
        state_dict=state, meta=dict(epoch=1, cfg='x = 1', dataset_meta=dict(classes=('a', 'b'))), optimizer=dict(lr=0.1)
    )
    new, old = io.BytesIO(), io.BytesIO()
    torch.save(content, new)
    torch.save(content, old, _use_new_zipfile_serialization=False)
    zips, olds, safe = [new.getvalue()], [old.getvalue()], [save(state, metadata=dict(format='pt'))]
    kinds = st.one_of(
        st.tuples(st.just('.pth'), damaged(zips)),
        st.tuples(st.just('.pth'), damaged_archive(zips)),
        st.tuples(st.just('.pth'), damaged(olds)),
        st.tuples(st.just('.safetensors'), damaged(safe)),
    )

    def parse(drawn: tuple[str, bytes]) -> None:
        from usp_mm.fileio.weights import load_from_local, read_checkpoint, read_trained

        path = folder / f'x{drawn[0]}'
        path.write_bytes(drawn[1])
        read_checkpoint(path, mmap=True, verify=False)
        _ = read_trained(path).classes
        load_from_local(str(path))

    return Target(kinds, parse)


def npz(folder: Path) -> Target:
    """Samples, reference statistics and cached moments."""
    from usp_mm.evaluation.reference_data import ADM_STATISTICS

    seeds = []
    for arrays in (
        dict(arr_0=np.zeros((3, 4, 4, 3), np.uint8), arr_1=np.arange(3)),
        {name: np.zeros(2) for pair in ADM_STATISTICS.values() for name in pair},
        dict(moments=np.zeros((8, 4, 4), np.float32), moments_flip=np.zeros((8, 4, 4), np.float16)),
        dict(neighbours=np.zeros((2, 3)), mean_pool=np.zeros(3), covariance_pool=np.zeros((3, 3))),
    ):
        for write in (np.savez, np.savez_compressed):
            out = io.BytesIO()
            write(out, **arrays)
            seeds.append(out.getvalue())

    def parse(content: bytes) -> None:
        from usp_mm.datasets.latent_cache.importer import read_moments
        from usp_mm.evaluation.computed_statistics import _read
        from usp_mm.evaluation.images import NpzImages, read_headers
        from usp_mm.evaluation.reference_data import Reference

        path = folder / 'x.npz'
        path.write_bytes(content)
        _read(path, ['pool'])
        for read in (
            read_headers,
            lambda path: next(NpzImages(path).batches(2)),
            lambda path: Reference(path, adm=True, num_neighbours=0).moments(),
            lambda path: read_moments(str(path)),
        ):
            outcome = attempt(Target(st.none(), read), path)
            assert outcome is None, outcome

    return Target(st.one_of(damaged(seeds), damaged_archive(seeds)), parse)


def images(folder: Path) -> Target:
    """Pictures in the usual formats."""
    pixels, seeds = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3), []
    for kind in ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM', 'TGA', 'ICO', 'JPEG2000'):
        for image in (Image.fromarray(pixels), Image.fromarray(pixels).convert('L')):
            out, exif = io.BytesIO(), Image.Exif()
            exif[274] = 6
            image.save(out, format=kind, **(dict(exif=exif) if kind in ('PNG', 'JPEG', 'TIFF', 'WEBP') else {}))
            seeds.append(out.getvalue())
    wide = io.BytesIO()
    Image.fromarray(np.arange(120, dtype=np.uint16).reshape(12, 10)).save(wide, format='PNG')

    def parse(content: bytes) -> None:
        from usp_mm.images import decode_image

        assert decode_image(content, 'x.png').image.mode == 'RGB'

    return Target(damaged([*seeds, wide.getvalue()]), parse)


_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from([0, -1, 10**12, 1e308, '../precious', '/precious', 'shard-00000.npy', 'float16', 'a' * 64]),
)
JSON_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=6,
)


@st.composite
def changed_json(draw: Any, content: dict) -> bytes:
    """JSON with up to 3 values, at any depth, replaced or removed."""
    content = json.loads(json.dumps(content))
    for _ in range(draw(st.integers(1, 3))):
        node, key = content, draw(st.sampled_from(sorted(content) or ['x']))
        while isinstance(node.get(key) if isinstance(node, dict) else node[key], dict | list) and draw(st.booleans()):
            inner = node[key]
            if not inner:
                break
            node, key = (
                inner,
                draw(st.sampled_from(sorted(inner)) if isinstance(inner, dict) else st.integers(0, len(inner) - 1)),
            )
        if isinstance(node, dict) and draw(st.integers(0, 4)) == 0:
            node.pop(key, None)
        else:
            node[key] = draw(JSON_VALUES)
    return json.dumps(content).encode()


def manifests(folder: Path) -> Target:
    """The manifest of a cache beside which lies a file that must stay."""
    sys.path.insert(0, str(Path(__file__).parents[1] / 'test_datasets'))
    from fake_codec import fake_codec, image_folder

    from usp_mm.datasets import LatentCacheDataset
    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.verify import describe_cache, verify_cache
    from usp_mm.datasets.latent_cache.writer import write_cache

    whole, cache, precious = folder / 'whole', folder / 'cache', folder / 'precious'
    root = image_folder(folder / 'images', {'a': 3, 'b': 2})
    write_cache(str(root), whole, fake_codec(), CacheSpec(32, encode_batch_size=2, shard_size=2), 2, 0)
    seed = json.loads((whole / 'manifest.json').read_text())
    precious.touch()

    def parse(content: bytes) -> None:
        if not cache.exists() or len(list(cache.iterdir())) < len(list(whole.iterdir())):
            shutil.copytree(whole, cache, dirs_exist_ok=True)
        (cache / 'manifest.json').write_bytes(content)
        try:
            describe_cache(cache)
            dataset = LatentCacheDataset(str(cache), flip=random.random() < 0.5, verify='off')
            _ = dataset[0], dataset.get_data_info(-1), dataset.CLASSES
        finally:
            outcome = attempt(Target(st.none(), lambda path: verify_cache(path, delete_bad=True)), cache)
            assert outcome is None, outcome
            assert precious.exists(), 'a file outside of the cache was deleted'

    return Target(st.one_of(changed_json(seed), changed_json(seed), damaged([json.dumps(seed).encode()])), parse)


_PIECES = [
    '[',
    ']',
    '(',
    ')',
    '{',
    '}',
    ',',
    "'",
    '"',
    '=',
    ' ',
    ':',
    'a',
    '1',
    '-',
    '.',
    'e',
    'None',
    'True',
    '1e999',
    '9' * 5000,
    '\n',
    '\\',
    '*',
]


def cfg_options(folder: Path) -> Target:
    """KEY=VALUE words, parsed and merged into a config."""
    from mmengine.config import Config

    from usp_mm.config.arguments import CfgOptionsAction
    from usp_mm.config.values import parse_value_or_none, quote_value
    from usp_mm.engine.checks.config import merge_cfg_options

    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptionsAction, default={})
    values = st.one_of(
        st.lists(st.sampled_from(_PIECES), max_size=12).map(''.join),
        st.text(max_size=20),
        JSON_VALUES.map(repr),
        st.tuples(st.sampled_from('[({'), st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1]),
        st.integers(1, 3000).map(lambda depth: '[' * depth + ']' * depth),
    )
    keys = st.sampled_from(
        ['model.depth', 'model.list.0', 'model.list.2', 'model', 'model.list', 'work_dir', 'x', 'model.depth.x', '', '.']
    )

    def parse(word: str) -> None:
        try:
            options = parser.parse_args(['--cfg-options', word]).cfg_options
        except SystemExit:
            return
        finally:
            text = word.partition('=')[2]
            value = parse_value_or_none(text)
            assert value is None or type(value) in (int, float, bool, str, list, tuple, dict)
            assert not isinstance(value, float) or math.isfinite(value) or 'n' in text.lower() or 'e' in text.lower()
        quoted = attempt(Target(st.none(), lambda text: quote_value(text)), text)
        assert quoted is None, quoted
        merge_cfg_options(Config(dict(model=dict(depth=1, list=[1, dict(a=2)]), work_dir='x')), options)

    return Target(st.tuples(keys, values).map('='.join).filter(lambda word: not word.startswith('-')), parse)


def configs(folder: Path) -> Target:
    """The config in a model folder that was fetched, which is parsed and not run."""
    from usp_mm.apis.config_data import parse_config

    seeds = [b"model = dict(type='USP', arch='base', depths=[1, 2], mask=None)\nrate = -1.5e-4\nname = 'x'\n"]
    texts = damaged(seeds).map(lambda content: content.decode(errors='replace'))
    deep = st.integers(1, 3000).map(lambda depth: 'x = ' + '[' * depth + ']' * depth)
    return Target(
        st.one_of(texts, deep, JSON_VALUES.map(lambda value: f'x = {value!r}')), lambda text: parse_config(text, 'config.py')
    )


#: Name -> makes a target that keeps its files in a folder.
TARGETS: dict[str, Callable[[Path], Target]] = dict(
    manifest=manifests, checkpoint=checkpoints, npz=npz, image=images, cfg_options=cfg_options, config=configs
)
