"""Reading of checkpoints of any kind, and conversion to official names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.fileio.weights import CONTAINERS, check_finite, is_weights, read_checkpoint, unwrapped_names
from usp_mm.presets import lookup
from usp_mm.vaes.build import TRAINING_ONLY
from usp_mm.vaes.kl import load_autoencoder
from usp_mm.vaes.record import record_in

from .check import check_network, describe
from .conversion_data import Checkpoint, Entries, Entry, shapes_of
from .diffusers_dit import from_diffusers, read_diffusers_folder
from .kinds import KINDS, LIGHTNING, detect
from .official_names import to_official, without_official_name

#: This package's prefixes of a generator's two sets of weights.
PREFIXES = {'model': 'denoiser.', 'ema': 'denoiser_ema.module.'}
STEPS = 'denoiser_ema.steps'
PROJECTOR = ('projectors.0.', 'repa.projector.')
#: Entries beside the weights in a checkpoint -> the specific reason for not converting them.
_TRAINING = {'ema_state_dict': "EMAHook's other set: state_dict is the one that was validated"}


def read(path: Path, kind: str | None = None, drop: Sequence[str] = ()) -> Checkpoint:
    """Read a checkpoint and convert all its names to official ones.

    Args:
        path: A file, or a folder of diffusers.
        kind: Kind of the checkpoint, a key of `KINDS`; None detects it from the names.
        drop: Beginnings of names to leave out.

    Raises:
        FileNotFoundError: `path` does not exist.
        ValueError: The file is not data, is of an unknown kind or not of the given one, or names or shapes do not fit the
            kind.
    """
    if kind is not None:
        lookup(KINDS, kind, 'kind of checkpoint')
    config: dict[str, Any] = {}
    if path.is_dir():
        content, config = read_diffusers_folder(path)
        kind = kind or 'diffusers'
    else:
        content = read_checkpoint(path, mmap=True)
    found, beside, named = _split(content, path)
    result = Checkpoint('', {}, named)
    for which, weights in found.items():
        check_finite(weights, path)
        result.sets[which] = _entries(weights, which if len(found) > 1 else None, path, result)
    result.dropped += [(name, _why_beside(name, content[name])) for name in beside]

    shapes = shapes_of(next(iter(result.sets.values())))
    try:
        result.kind = _kind(kind, shapes, content.get('args'))
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from None
    how = 'as requested' if kind else 'detected from its names'
    _drop_asked(result, drop)
    logger = MMLogger.get_current_instance()
    logger.info(f"'{path}': {result.kind}, {KINDS[result.kind].description} ({how})")
    try:
        if result.kind in _ONE_SET and len(result.sets) == 1:
            result.sets, result.named = {'model': next(iter(result.sets.values()))}, False
        elif result.kind in _ONE_SET:
            raise ValueError(
                f'the weights of {KINDS[result.kind].description} stand alone, not under {" and ".join(result.sets)}'
            )
        _TRANSLATE.get(result.kind, _official)(result, content, config)
        _check(result)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
    if family_of(result) != 'vae':
        logger.info(describe(shapes_of(next(iter(result.sets.values())))))
    return result


def _kind(asked: str | None, shapes: Mapping[str, tuple[int, ...]], args: Any) -> str:
    """The requested kind, else the detected one. For three kinds with distinctive names, the request is checked."""
    if asked not in (None, 'usp_mm', 'kl16', 'vavae'):
        return asked
    found = detect(shapes, args)
    if asked not in (None, found):
        raise ValueError(f'not {KINDS[asked].description} ({asked}), but {KINDS[found].description} ({found})')
    return found


def family_of(checkpoint: Checkpoint) -> str:
    """The family of a checkpoint: 'encoder', 'denoiser' or 'vae'."""
    generator = any('x_embedder.proj.weight' in entries for entries in checkpoint.sets.values())
    return KINDS[checkpoint.kind].family or ('denoiser' if generator else 'encoder')


def _split(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Mapping[str, Tensor]], list[str], bool]:
    """Split a file into ('model' and 'ema' -> weights, names of all other entries, whether the file itself names the sets)."""
    sets = {key: content[key] for key in ('model', 'ema') if is_weights(content.get(key))}
    used = set(sets)
    alone = next((key for key in CONTAINERS if is_weights(content.get(key))), None)
    if not sets and alone is not None:
        sets, used = {'model': content[alone]}, {alone}
    elif not sets and is_weights(content):
        return {'model': content}, [], False
    elif not sets:
        entries = ', '.join(f'{key} ({type(value).__name__})' for key, value in list(content.items())[:6])
        raise ValueError(
            f"'{path}' holds no weights: expected name -> tensor, plain or under {', '.join(CONTAINERS)}; has {entries}"
        )
    return sets, [name for name in content if name not in used], 'ema' in sets


def _why_beside(name: str, value: Any) -> str:
    weights = 'another set of weights, which is not read: save it in a file of its own to convert it'
    return _TRAINING.get(name) or (weights if is_weights(value) else 'a part of training, no weights of the network')


def _entries(weights: Mapping[str, Tensor], which: str | None, path: Path, result: Checkpoint) -> Entries:
    """Entries under names without the prefixes of wrappers. With two sets in a file, sources are noted as 'ema: blocks.0…'."""
    noted = {name: name if which is None else f'{which}: {name}' for name in weights}
    names = unwrapped_names(weights, path)
    result.dropped += [(noted[name], 'the count of updates of an average') for name in weights if name not in names]
    return {new: Entry(weights[old].detach(), (noted[old],)) for old, new in names.items()}


def _drop_asked(result: Checkpoint, drop: Sequence[str]) -> None:
    for prefix in drop:
        found = False
        for entries in result.sets.values():
            names = [name for name in entries if name.startswith(prefix)]
            result.drop((entries.pop(name) for name in names), 'as asked')
            found = found or bool(names)
        if not found:
            shown = sorted({name.split('.')[0] for entries in result.sets.values() for name in entries})[:8]
            raise ValueError(f"drop '{prefix}': no name begins with it, they begin with {', '.join(shown)}")


# ---------------------------------------------------------------------- one function per kind: its names -> official names


def _official(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    steps = content.get('steps')
    if result.named and type(steps) is int:
        result.beside[STEPS] = Entry(torch.tensor(steps), ('steps',))
        result.dropped = [(name, reason) for name, reason in result.dropped if name != 'steps']


def _repa(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    _official(result, content, config)
    result.notes.append("REPA's t = 1 is noise: the config needs model.objective.time_convention='noise_at_1'")


def _lightning(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    _official(result, content, config)
    for entries in result.sets.values():
        rope = [name for name in entries if name.startswith(LIGHTNING[0])]
        result.drop((entries.pop(name) for name in rope), 'rotary table, computed from the size')


def _diffusers(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    if not config:
        raise ValueError("diffusers' weights need the config.json beside them: give the folder instead of the file")
    result.sets['model'] = from_diffusers(result.sets['model'], config, result.notes)
    result.facts |= {key: config[name] for key, name in (('num_heads', 'num_attention_heads'),) if name in config}


def _vae(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    entries = result.sets['model']
    training = [name for name in entries if name.startswith(TRAINING_ONLY)]
    result.drop((entries.pop(name) for name in training), "of the VAE's training")


def _ours(result: Checkpoint, content: Mapping[str, Any], config: dict[str, Any]) -> None:
    """Make `denoiser.…` and its average two sets, or `backbone.…` and `neck.…` one set; the rest goes to `beside`."""
    entries = result.sets['model']
    meta = content.get('meta')
    if isinstance(meta, Mapping):
        result.facts['flow'] = "type='FlowObjective'" in str(meta.get('cfg'))  # the config's text, which is not executed
        if isinstance(meta.get('dataset_meta'), Mapping):
            result.facts['dataset_meta'] = dict(meta['dataset_meta'])
        if (vae := record_in(content)) is not None:
            result.facts['vae'] = vae
    if any(name.startswith(PREFIXES['model']) for name in entries):
        sets = {
            which: {name[len(prefix) :]: x for name, x in entries.items() if name.startswith(prefix)}
            for which, prefix in PREFIXES.items()
        }
        result.sets = {which: found for which, found in sets.items() if found}
        result.named = True
        prefixes = tuple(PREFIXES.values())
        result.beside |= {name: x for name, x in entries.items() if not name.startswith(prefixes)}
        return
    unnamed = without_official_name(entries)
    result.beside = {name: entries[name] for name in unnamed}
    result.sets['model'] = to_official({name: x for name, x in entries.items() if name not in result.beside})


#: Kinds whose files hold a single set of weights, either plain or under state_dict or model.
_ONE_SET = ('usp_mm', 'diffusers', 'kl16', 'vavae')
_TRANSLATE = {
    'usp_mm': _ours,
    'repa': _repa,
    'lightningdit': _lightning,
    'diffusers': _diffusers,
    'kl16': _vae,
    'vavae': _vae,
}


def _check(result: Checkpoint) -> None:
    family = family_of(result)
    shapes = {which: shapes_of(entries) for which, entries in result.sets.items()}
    for which, found in shapes.items():
        if family == 'vae':
            load_autoencoder({name: entry.value for name, entry in result.sets[which].items()}, result.kind)
        else:
            check_network(found, result.kind, family)
    if len(shapes) == 2 and shapes['model'] != shapes['ema']:
        model, ema = shapes['model'], shapes['ema']
        differ = sorted(name for name in model.keys() | ema.keys() if model.get(name) != ema.get(name))[:4]
        pairs = ', '.join(f'{name} {model.get(name, "missing")} and {ema.get(name, "missing")}' for name in differ)
        raise ValueError(f'model and ema are of two networks: {pairs}')
    if result.kind == 'repa':
        _projector_beside(result)


def _projector_beside(result: Checkpoint) -> None:
    """Take the projector from the network's set. Its average is used by neither training nor sampling."""
    theirs, ours = PROJECTOR
    for which, entries in result.sets.items():
        projector = {ours + name[len(theirs) :]: entries.pop(name) for name in list(entries) if name.startswith(theirs)}
        if which == 'ema' and 'model' in result.sets:
            result.drop(projector.values(), 'the average of the projector: this package averages only the denoiser')
        else:
            result.beside |= projector
