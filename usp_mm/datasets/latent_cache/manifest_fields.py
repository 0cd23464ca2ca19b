"""What the fields of a latent cache's manifest and plan may hold, so that nothing else of the package has to doubt them."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from usp_mm.config.options import STORAGES, STORES

#: Most shards of a cache, as many as the names have numbers for.
MOST_SHARDS = 100_000
_MOST_SAMPLES = 10**12
#: Most numbers of a view's latent or tokens: NumPy's records end at 2 GiB.
_MOST_NUMBERS = 2**27
_SHA256 = re.compile(r'[0-9a-f]{64}')
_MODES = ('center', 'random')
_TOKEN_DTYPES = ('float16', 'bfloat16', 'float32')


def shard_name(number: int, kind: str = 'shard') -> str:
    """File name of a shard of latents, or of another kind."""
    return f'{kind}-{number:05d}.npy'


def is_whole_number(low: int, high: int) -> Callable[[Any], bool]:
    """Make a check whether a value is a whole number from `low` to `high`."""
    return lambda value: type(value) is int and low <= value <= high


def _is_number(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        return False


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_number, value))


def _is_text(value: Any) -> bool:
    """Whether a value is text of one line that can be written to a log."""
    return isinstance(value, str) and not any(unicodedata.category(character) in ('Cc', 'Cs') for character in value)


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(map(_is_text, value)) and len(set(value)) == len(value))


def _is_affine(value: Any) -> bool:
    return value is None or _is_number(value) or _is_numbers(value)


def _is_one_of(names: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


def _is_crop(value: Any) -> bool:
    if not isinstance(value, dict) or value.get('mode') not in _MODES:
        return False
    if value['mode'] == 'center':
        return True
    scale: Any = value.get('scale')
    return (
        _is_numbers(scale)
        and len(scale) == 2
        and 0 < scale[0] <= scale[1] <= 1
        and is_whole_number(0, 2**63)(value.get('seed'))
    )


def _is_teacher(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or not all(_is_text(value.get(key)) for key in ('name', 'weight_hash', 'dtype')):
        return False
    grid: Any = value.get('grid')
    side = is_whole_number(1, 2**16)
    on_grid = isinstance(grid, list) and len(grid) == 2 and all(map(side, grid))
    right = on_grid and side(value.get('dim')) and _is_one_of(_TOKEN_DTYPES)(value.get('stored'))
    return right and math.prod(grid) * value['dim'] <= _MOST_NUMBERS


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


#: Key of a plan -> whether a value is right, and in words what is.
PLAN_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'format_version': (is_whole_number(1, 2**31), 'a whole number'),
    'vae': (_is_text, 'a name'),
    'vae_weight_hash': (_is_text, 'a hash'),
    'scale': (_is_affine, 'a number, or one for each channel'),
    'shift': (_is_affine, 'a number, or one for each channel'),
    'channels': (is_whole_number(1, 2**16), 'from 1 to 65,536'),
    'stride': (is_whole_number(1, 2**16), 'from 1 to 65,536'),
    'image_size': (is_whole_number(1, 2**16), 'from 1 to 65,536 pixels'),
    'latent_size': (is_whole_number(1, 2**16), 'from 1 to 65,536'),
    'crop': (_is_crop, "mode 'center', or 'random' with scale and seed"),
    'encode_dtype': (_is_text, 'a dtype'),
    'encode_batch_size': (is_whole_number(1, 2**31), 'a positive number of images'),
    'dtype': (_is_one_of(STORAGES), f'one of {", ".join(STORAGES)}'),
    'store': (_is_one_of(STORES), f'one of {", ".join(STORES)}'),
    'fields': (lambda value: isinstance(value, dict) and all(map(_is_text, value.values())), 'texts by name'),
    'crops': (is_whole_number(1, 2**16), 'from 1 to 65,536'),
    'flip': (lambda value: isinstance(value, bool), 'true or false'),
    'views': (lambda value: isinstance(value, list) and bool(value) and all(map(_is_text, value)), 'names of views'),
    'num_samples': (is_whole_number(1, _MOST_SAMPLES), f'from 1 to {_MOST_SAMPLES:,}'),
    'shard_size': (is_whole_number(1, _MOST_SAMPLES), f'from 1 to {_MOST_SAMPLES:,}'),
    'samples_sha256': (_is_sha256, '64 hex digits'),
    'labels_sha256': (_is_sha256, '64 hex digits'),
    'classes': (_is_names, 'different names, or null'),
    'compiled': (lambda value: isinstance(value, bool), 'true or false'),
    'imported': (_is_text, 'a text'),
    'teacher': (_is_teacher, 'name, weight_hash, dtype, grid, dim and stored of an encoder'),
}
#: Keys of a plan that caches may lack.
OPTIONAL = ('scale', 'shift', 'classes', 'compiled', 'imported', 'teacher')
#: Further keys of a manifest.
MANIFEST_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'latent_mean': (_is_numbers, 'a finite number for each channel'),
    'latent_std': (lambda value: _is_numbers(value) and min(value) >= 0, 'a finite number of at least 0 for each channel'),
    'shards': (lambda value: isinstance(value, list), 'a list'),
}
#: Keys of what is noted beside a shard of tokens, and beside one of latents.
TOKEN_NOTE_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    'file': (_is_text, 'a name'),
    'count': (is_whole_number(1, _MOST_SAMPLES), 'a positive number of samples'),
    'bytes': (is_whole_number(1, 2**63), 'a positive number of bytes'),
    'sha256': (_is_sha256, '64 hex digits'),
}
NOTE_FIELDS = {
    **TOKEN_NOTE_FIELDS,
    'latent_sum': (_is_numbers, 'a finite number for each channel'),
    'latent_square_sum': (_is_numbers, 'a finite number for each channel'),
}


def check_plan(content: Mapping[str, Any], name: str) -> None:
    """Check every field of a plan.

    Raises:
        ValueError: A field is missing or wrong; the message, one line, begins with `name` and names what was expected.
    """
    check_fields(content, PLAN_FIELDS, name)
    crops, flip, views = content['crops'], content['flip'], content['views']
    if len(views) != crops * (1 + flip):
        raise ValueError(f'{name}: views has {len(views)} names, expected {crops * (1 + flip)} for crops={crops}, flip={flip}')
    numbers = content['channels'] * content['latent_size'] ** 2
    if numbers > _MOST_NUMBERS:
        raise ValueError(f'{name}: channels and latent_size make {numbers:,} numbers, expected at most {_MOST_NUMBERS:,}')
    latent = content['latent_size'] * content['stride']
    if latent != content['image_size']:
        raise ValueError(f'{name}: latent_size times stride is {latent}, expected the image_size, {content["image_size"]}')
    shards = num_shards(content)
    if shards > MOST_SHARDS:
        raise ValueError(f'{name}: num_samples and shard_size make {shards:,} shards, expected at most {MOST_SHARDS:,}')


def check_manifest(content: Mapping[str, Any], name: str) -> None:
    """Check every field of a manifest; errors are those of `check_plan`."""
    check_plan(content, name)
    check_fields(content, MANIFEST_FIELDS, name)
    for key in ('latent_mean', 'latent_std'):
        if len(content[key]) != content['channels']:
            raise ValueError(f'{name}: {key} has {len(content[key])} numbers, expected {content["channels"]}, the channels')
    for key, kind, wanted in (('shards', 'shard', True), ('teacher_shards', 'teacher', bool(content.get('teacher')))):
        _check_shards(content, key, kind, name, wanted)


def num_shards(plan: Mapping[str, Any]) -> int:
    """Number of shards of a plan."""
    return -(-plan['num_samples'] // plan['shard_size'])


def check_fields(content: Mapping[str, Any], fields: Mapping[str, tuple[Callable[[Any], bool], str]], name: str) -> None:
    """Raise a ValueError unless every field is right; those in `OPTIONAL` may be missing."""
    for key, (is_right, expected) in fields.items():
        if key not in content and key not in OPTIONAL:
            raise ValueError(f'{name}: {key} is missing, expected {expected}')
        if key in content and not is_right(content[key]):
            raise ValueError(f'{name}: {key} is {_short(content[key])}, expected {expected}')


def _check_shards(content: Mapping[str, Any], key: str, kind: str, name: str, wanted: bool) -> None:
    """Check that the entries of shards are those that `num_samples` and `shard_size` make, in order."""
    entries, expected = content.get(key, []), num_shards(content) if wanted else 0
    given = f'num_samples={content["num_samples"]}, shard_size={content["shard_size"]}'
    if not isinstance(entries, list) or len(entries) != expected:
        fault = f'has {len(entries):,} entries' if isinstance(entries, list) else f'is {_short(entries)}'
        raise ValueError(f'{name}: {key} {fault}, expected {expected:,} for {given}')
    for number, entry in enumerate(entries):
        count = min(content['shard_size'], content['num_samples'] - number * content['shard_size'])
        right = dict(file=shard_name(number, kind), count=count)
        found: Any = {part: entry.get(part) for part in right} if isinstance(entry, dict) else entry
        if found != right:
            raise ValueError(f'{name}: entry {number} of {key} is {_short(found)}, expected {right} for {given}')
        check_fields(entry, TOKEN_NOTE_FIELDS, f'{name}: entry {number} of {key}')


def _short(value: Any) -> str:
    if isinstance(value, list | dict) and len(value) > 8:
        return f'a {type(value).__name__} of {len(value):,}'
    text = ascii(value)
    return text if len(text) <= 120 else f'{text[:117]}...'
