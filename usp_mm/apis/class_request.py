"""The classes that somebody asks for: numbers or names, with counts."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from usp_mm.presets import nearest

_WORDNET_ID = re.compile(r'n\d{8}')


@dataclass(frozen=True)
class ClassRequest:
    """`count` pictures of class `label`; `name` is the first of its names, or its number."""

    label: int
    name: str
    count: int


def parse_classes(
    classes: Sequence[int | str], num_classes: int, names: Sequence[str] | None, per_class: int
) -> list[ClassRequest]:
    """One request an entry, in their order.

    Args:
        classes: numbers, names in any case, or either with a count: 207, '207', 'golden retriever', '207:4'.
        num_classes: of the generator.
        names: of the classes, from 0, as the data set had them. 1000 classes without names, or named by WordNet ids, are
            taken for ImageNet's, and go by any of their synonyms.
        per_class: pictures of an entry without a count.

    Raises:
        ValueError: nothing asked for, a number out of range, an unknown or ambiguous name, or a count below 1.
    """
    if not classes:
        raise ValueError('no classes: give at least one, a number or a name')
    labels = _labels_by_name(num_classes, names)
    requests = []
    for entry in classes:
        word, _, count = str(entry).rpartition(':') if re.search(r':-?\d+$', str(entry)) else (str(entry), '', per_class)
        if int(count) < 1:
            raise ValueError(f"class '{entry}': {count} pictures are asked for, give 1 or more")
        label = _find(word.strip(), num_classes, labels)
        requests.append(ClassRequest(label, _first_name(label, labels), int(count)))
    return requests


def _labels_by_name(num_classes: int, names: Sequence[str] | None) -> dict[str, list[int]]:
    """Lower-case name -> the classes that have it."""
    found: dict[str, list[int]] = defaultdict(list)
    anonymous = not names or all(_WORDNET_ID.fullmatch(str(name)) for name in names)
    for tables in ((IMAGENET_CATEGORIES,) if num_classes == 1000 and anonymous else ()), (names or (),):
        for table in tables:
            for label, name in enumerate(table):
                for part in dict.fromkeys([str(name), *str(name).split(',')]):
                    found[part.strip().lower()].append(label)
    return found


def _find(word: str, num_classes: int, labels: dict[str, list[int]]) -> int:
    if re.fullmatch(r'-?\d+', word):
        if not 0 <= int(word) < num_classes:
            raise ValueError(f'class {word} is out of range: the generator has {num_classes} classes, 0 to {num_classes - 1}')
        return int(word)
    found = labels.get(word.lower(), [])
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"class '{word}' is the name of several, {' and '.join(map(str, found))}: give the number")
    if not labels:
        raise ValueError(f"class '{word}': neither config nor checkpoint names the classes, give a number below {num_classes}")
    raise ValueError(f"unknown class '{word}': expected a number below {num_classes} or a name{nearest(word.lower(), labels)}")


def _first_name(label: int, labels: dict[str, list[int]]) -> str:
    return next((name.split(',')[0] for name, found in labels.items() if label in found), str(label))
