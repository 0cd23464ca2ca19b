"""Conversion from official names to the names of an output format."""

from dataclasses import dataclass

import torch

from .check import check_network
from .conversion_data import Checkpoint, Entries, Entry, renamed, shapes_of
from .diffusers_dit import to_diffusers
from .kinds import LIGHTNING, TARGETS
from .norm_folding import fold_norms, has_norms
from .official_names import from_official
from .sources import PREFIXES, PROJECTOR, STEPS, family_of

_FAMILIES = {'encoder': 'an encoder', 'denoiser': 'a generator', 'vae': 'a VAE'}
_FLOW = ('sit', 'usp-sit', 'repa', 'lightningdit')
_ABOUT_DIFFUSERS = (
    'a DiTPipeline samples DiT, trained to predict ε in 1000 linear steps, with tanh-GELU; names do not tell it from SiT',
    "diffusers' time embedding has frequencies 10000^(-k/127), DiT's 10000^(-k/128): outputs are this package's where "
    'usp_mm is imported, which corrects that unless USP_DIFFUSERS_TIMES=off, and near them elsewhere',
)
_PRETRAINING = ('mask_token', 'decoder_')


@dataclass
class Output:
    """The tensors to be written.

    Attributes:
        sets: '' -> tensors by name for a flat file, or 'model' and 'ema' -> the tensors of each set.
        official: The weights under official names, from which a target's config is derived.
        steps: The count of EMA updates, if official code has a place for it.
    """

    sets: dict[str, Entries]
    official: Entries
    steps: Entry | None = None


def translate(source: Checkpoint, target: str, weights: str | None, fold: bool) -> Output:
    """Rename a checkpoint's tensors for a target. Tensors that are left out are recorded in the checkpoint.

    Args:
        source: The checkpoint.
        target: Output format, a key of `TARGETS`.
        weights: Set to take from a file with both, 'ema' or 'model'. None takes both if the target can hold both, else 'ema'.
        fold: Whether to fold affine norms into adaLN.

    Raises:
        ValueError: The target cannot hold the network.
    """
    family = family_of(source)
    if target in ('timm', 'diffusers') and family != {'timm': 'encoder', 'diffusers': 'denoiser'}[target]:
        raise ValueError(f'{source.kind} is {_FAMILIES[family]}, which {TARGETS[target]} cannot hold')
    if target == 'diffusers' and (source.kind in _FLOW or source.facts.get('flow')):
        raise ValueError(f'{source.kind}: a DiTPipeline denoises in 1000 steps of ε, and has no sampler for flow matching')
    both = (family, target) in (('denoiser', 'usp_mm'), ('denoiser', 'official'), ('encoder', 'official'))
    _select(source, weights, single=not both)
    if fold and family != 'denoiser':
        raise ValueError(f'fold_norms: {source.kind} is {_FAMILIES[family]}, which has no adaLN to fold norms into')
    if fold or target == 'diffusers':
        _fold(source, asked=fold)
    return _WRITERS[target](source, family)


def _select(source: Checkpoint, weights: str | None, single: bool) -> None:
    """Drop the sets of weights that were not asked for."""
    if weights is not None and not (source.named and weights in source.sets):
        has = ' and '.join(source.sets) if source.named else 'one unnamed set of weights'
        raise ValueError(f"weights='{weights}': the file has {has}{'' if source.named else ', leave weights out'}")
    if weights is None and single and len(source.sets) > 1:
        weights = 'ema'
        source.notes.append('the file has model and ema: the averaged weights are taken, weights=model takes the others')
    if weights is not None:
        for other in set(source.sets) - {weights}:
            source.drop(source.sets.pop(other).values(), f'weights={weights}')


def _fold(source: Checkpoint, asked: bool) -> None:
    found = [which for which, entries in source.sets.items() if has_norms(entries)]
    if asked and not found:
        raise ValueError(f'{source.kind}: its blocks have no affine norms to fold')
    for which in found:
        source.sets[which] = fold_norms(source.sets[which])
    if found:
        source.notes.append(
            "the blocks' norms are folded into adaLN: the same function to rounding, not bit for bit, and there is no way back"
        )


def _usp_mm(source: Checkpoint, family: str) -> Output:
    beside = dict(source.beside)
    if family != 'denoiser':
        (entries,) = source.sets.values()
        return Output({'': (entries if family == 'vae' else from_official(entries)) | beside}, entries)
    model, ema = (source.sets.get(which) for which in ('model', 'ema'))
    if source.kind == 'usp_mm' and ema is None and STEPS not in beside:
        return Output({'': _prefixed(model or {}, PREFIXES['model']) | beside}, model or {})
    model, ema = model or ema or {}, ema or model or {}
    if len(source.sets) == 1:
        source.notes.append('the one set of weights becomes the network and its average')
    steps = beside.pop(STEPS, None) or Entry(torch.tensor(0), ())
    sets = _prefixed(model, PREFIXES['model']) | _prefixed(ema, PREFIXES['ema']) | {STEPS: steps} | beside
    return Output({'': sets}, ema)


def _prefixed(entries: Entries, prefix: str) -> Entries:
    return renamed(entries, lambda name: prefix + name)


def _official(source: Checkpoint, family: str) -> Output:
    theirs, ours = PROJECTOR
    projector = {theirs + name[len(ours) :]: x for name, x in source.beside.items() if name.startswith(ours)}
    _refuse_beside(source, 'official code', allowed=(*(f'{ours}{i}.' for i in (0, 2, 4)), STEPS))
    steps = source.beside.get(STEPS)
    if steps and len(source.sets) == 1:
        source.drop([steps], 'only for training')
        steps = None
    sets = {which: entries | projector for which, entries in source.sets.items()}
    if any(name.startswith(LIGHTNING[1]) for entries in sets.values() for name in entries):
        source.notes.append('the official buffers feat_rope.* are not written: load with strict=False, the code computes them')
    one = next(iter(sets.values()))
    wrapped = family == 'encoder' or len(sets) > 1
    return Output(sets if wrapped else {'': one}, one, steps)


def _timm(source: Checkpoint, family: str) -> Output:
    _refuse_beside(source, "timm's ViT")
    (entries,) = source.sets.values()
    left = {name: x for name, x in entries.items() if name.startswith(_PRETRAINING)}
    source.drop(left.values(), 'only for pretraining, no part of a ViT')
    entries = {name: x for name, x in entries.items() if name not in left}
    if any(name.startswith('head.0.') for name in entries):
        names = [source for name, x in entries.items() if name.startswith('head.') for source in x.sources]
        raise ValueError(
            f"a linear probe's BatchNorm, which timm's ViT has no place for: drop it and its classifier ({', '.join(names)})"
        )
    check_network(shapes_of(entries), 'timm', 'encoder')
    return Output({'': entries}, entries)


def _diffusers(source: Checkpoint, family: str) -> Output:
    _drop_training(source)
    (entries,) = source.sets.values()
    source.notes += _ABOUT_DIFFUSERS
    result = to_diffusers(entries)
    source.drop([entries['pos_embed']], 'diffusers computes the sine-cosine table, which it is')
    return Output({'': result}, entries)


def _safetensors(source: Checkpoint, family: str) -> Output:
    _drop_training(source)
    (entries,) = source.sets.values()
    return Output({'': entries}, entries)


def _drop_training(source: Checkpoint) -> None:
    """Drop REPA's projector and the count of EMA updates; ValueError if there are other tensors beside the denoiser."""
    _refuse_beside(source, 'one network under official names', allowed=(PROJECTOR[1], STEPS))
    source.drop(source.beside.values(), 'only for training')
    source.beside = {}


def _refuse_beside(source: Checkpoint, what: str, allowed: tuple[str, ...] = ()) -> None:
    left = [f'{name} {list(x.value.shape)}' for name, x in source.beside.items() if not name.startswith(allowed or ('\0',))]
    if left:
        more = ', …' if len(left) > 4 else ''
        raise ValueError(
            f'{what} has no place for {len(left)} tensors: {", ".join(left[:4])}{more}; drop them by their beginning'
        )


_WRITERS = {
    'usp_mm': _usp_mm,
    'official': _official,
    'timm': _timm,
    'diffusers': _diffusers,
    'safetensors': _safetensors,
}
