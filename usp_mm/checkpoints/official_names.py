"""Conversion between this package's names and those of the official USP code, which MAE and timm's ViT share.

Only prefixes differ. An official pretraining checkpoint is one flat module, this package's has backbone and neck. The `head` of
an official classifier is mmpretrain's `head.layers.head`, and the BatchNorm `head.0` of a linear probe is mmpretrain's neck.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from usp_mm.models.weight_transfer import ENCODER_KEYS

Value = TypeVar('Value')

_NECK = ('mask_token', 'decoder_')
_HEAD = 'head.'
#: Official prefixes in a linear probe -> this package's.
_PROBE = {'head.0.': 'neck.bn.', 'head.1.': 'head.layers.head.'}


def from_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """Rename official pretraining or classifier weights to the keys of `USP` or `USPClassifier`.

    Raises:
        ValueError: A key belongs to neither.
    """
    return {_to_ours(name): value for name, value in state_dict.items()}


def to_official(state_dict: Mapping[str, Value]) -> dict[str, Value]:
    """The inverse of `from_official`.

    Raises:
        ValueError: The official code has no name for a key.
    """
    if unnamed := without_official_name(state_dict):
        raise ValueError(f"'{unnamed[0]}' is not a key of USP or USPClassifier")
    probe = any(name.startswith(_PROBE['head.0.']) for name in state_dict)
    return {_to_theirs(name, probe): value for name, value in state_dict.items()}


def without_official_name(names: Iterable[str]) -> list[str]:
    """The names that `to_official` does not accept, out of this package's `names`."""
    known = (
        *(f'backbone.{key}' for key in ENCODER_KEYS), *(f'neck.{key}' for key in _NECK), *_PROBE.values()
    )  # fmt: skip
    return [name for name in names if not name.startswith(known)]


def _to_ours(name: str) -> str:
    if name.startswith(ENCODER_KEYS):
        return f'backbone.{name}'
    if name.startswith(_NECK):
        return f'neck.{name}'
    for theirs, ours in _PROBE.items():
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    if name.startswith(_HEAD):
        return f'head.layers.{name}'
    raise ValueError(
        f"'{name}' is not a key of an official USP, MAE or timm ViT checkpoint: expected names that start with "
        f'{(*ENCODER_KEYS, *_NECK, _HEAD)}'
    )


def _to_theirs(name: str, probe: bool) -> str:
    if probe:
        for theirs, ours in _PROBE.items():
            if name.startswith(ours):
                return theirs + name[len(ours) :]
    for prefix in ('backbone.', 'neck.', 'head.layers.'):
        if name.startswith(prefix):
            return name[len(prefix) :]
    raise AssertionError(name)
