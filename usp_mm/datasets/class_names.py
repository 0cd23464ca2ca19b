"""Read and compare lists of class names, which are in the order of the labels."""

import functools
import re
from collections.abc import Sequence
from typing import Any

from mmengine.logging import MMLogger
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from .dataset_wrappers import all_datasets

_WORDNET_ID = re.compile(r'n\d{8}')
_SHOWN = 3


def class_names(dataset: Any) -> tuple[str, ...] | None:
    """Class names of a data set, or of the first data set in a wrapper that has them; None if none has."""
    for found in all_datasets(dataset):
        if classes := (getattr(found, 'metainfo', None) or {}).get('classes'):
            return tuple(map(str, classes))
    return None


def class_name(names: Sequence[str] | None, label: int) -> str | None:
    """Name of the class with this label; None if it has no name."""
    return str(names[label]) if names and 0 <= label < len(names) else None


def class_difference(expected: Sequence[str], found: Sequence[str]) -> str:
    """Describe in one line which classes are missing, extra and moved in `found`; '' if all classes are the same.

    WordNet ids of ImageNet and mmpretrain's names for them count as the same. If one list holds WordNet ids and the other
    holds names that are not mmpretrain's, only the numbers of classes are compared, and a warning says so.
    """
    ours, theirs = [str(name) for name in expected], [str(name) for name in found]
    if are_wordnet_ids(ours) != are_wordnet_ids(theirs):
        ours, theirs = _imagenet_names(ours), _imagenet_names(theirs)
        if not set(ours) | set(theirs) <= set(_imagenet_synonyms().values()):
            return _count_difference(expected, found)
    before, after = _places(ours), _places(theirs)
    parts = dict(
        missing=[f"'{name}'" for name in before if name not in after],
        extra=[f"'{name}'" for name in after if name not in before],
        moved=[
            f"'{name}' ({_numbers(before[name])} → {_numbers(after[name])})"
            for name in before
            if name in after and before[name] != after[name]
        ],
    )
    return '; '.join(f'{what} {_cut(names)}' for what, names in parts.items() if names)


def check_classes(expected: Sequence[str], found: Sequence[str], meeting: str, fix: str) -> None:
    """Refuse two lists that differ.

    Args:
        meeting: The owners of the two lists, such as "training data 'a' and validation data 'b'".
        fix: What the user can do about it.

    Raises:
        ValueError: The lists differ; the message says what is missing, extra and moved in the second.
    """
    if difference := class_difference(expected, found):
        counts = f'{len(expected)} and {len(found)}' if len(expected) != len(found) else f'{len(expected)} each'
        raise ValueError(f'the classes of {meeting} differ ({counts}): {difference}: {fix}')


def check_renaming(own: Sequence[str], names: Sequence[str], where: str) -> None:
    """Refuse new names for the classes of a folder or cache if their number differs or they are its own names reordered.

    Args:
        own: Class names of the folder or cache, in the order of the labels.
        names: Names to use instead, in the same order.
        where: The folder or cache for the message, such as "latent cache 'a'".

    Raises:
        ValueError: In either case, since new names neither select nor reorder classes.
    """
    if len(own) != len(names):
        raise ValueError(
            f'{where} holds {len(own)} classes, the config names {len(names)}: name each, in the order of the labels'
        )
    if list(map(str, own)) != list(map(str, names)) and sorted(map(str, own)) == sorted(map(str, names)):
        raise ValueError(
            f'{where} has the classes that the config names in another order ({class_difference(own, names)}), and names do '
            'not change labels: leave them out'
        )


def are_wordnet_ids(names: Sequence[str]) -> bool:
    """Whether all names look like n01440764."""
    return bool(names) and all(_WORDNET_ID.fullmatch(str(name)) for name in names)


def _imagenet_names(names: Sequence[str]) -> list[str]:
    """Replace WordNet ids and names of ImageNet by the first synonym (two synonyms belong to two classes each)."""
    known = _imagenet_synonyms()
    return [known.get(name.lower(), name) for name in names]


@functools.cache
def _imagenet_synonyms() -> dict[str, str]:
    from timm.data import ImageNetInfo

    first = [name.split(',')[0].lower() for name in IMAGENET_CATEGORIES]
    known = {name: name for name in first}
    known |= {name.lower(): synonym for name, synonym in zip(IMAGENET_CATEGORIES, first, strict=True)}
    return known | dict(zip(ImageNetInfo().label_names(), first, strict=True))


def _count_difference(expected: Sequence[str], found: Sequence[str]) -> str:
    if len(expected) != len(found):
        return f'{len(found)} instead of {len(expected)}'
    MMLogger.get_current_instance().warning(
        f"of classes named '{expected[0]}', … and '{found[0]}', … only the number is compared, {len(found)}: one are WordNet "
        'ids, the others names that are not those of mmpretrain for ImageNet'
    )
    return ''


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for label, name in enumerate(names):
        places.setdefault(name, []).append(label)
    return places


def _numbers(labels: Sequence[int]) -> str:
    return ', '.join(map(str, labels))


def _cut(names: Sequence[str]) -> str:
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(names[:_SHOWN]) + more
