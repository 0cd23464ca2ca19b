"""Parse requested classes: numbers or names, with counts."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from operator import index

from mmpretrain.datasets.categories import IMAGENET_CATEGORIES

from usp_mm.datasets.class_names import are_wordnet_ids, class_name

#: How a class is asked for that a word alone does not express.
_BY_LABEL, _BY_NAME = 'label=', 'name='
#: Name -> the classes that have it.
_Labels = dict[str, list[int]]


@dataclass(frozen=True)
class ClassRequest:
    """A request for `count` pictures of class `label`; `name` is the first name of the class, or its number."""

    label: int
    name: str
    count: int


def parse_classes(
    classes: Sequence[int | str], num_classes: int, names: Sequence[str] | None, per_class: int
) -> list[ClassRequest]:
    """Return one request per entry, in the same order.

    An int is a label. A string is the name of a class if one has it, first compared with case, then without; otherwise, if it
    is a number, it is a label. A number that is the label of one class and the name of another is refused, as is the label of a
    class whose name is another number: write 'label=10' or 'name=10' to say which is meant.

    Args:
        classes: Labels, names, or either with a count in a string: 207, '207', 'golden retriever', '207:4', 'label=10:4'.
        num_classes: Number of classes of the generator.
        names: Names of the classes in the order of their labels, as in the data set. 1000 classes without names, or with
            WordNet ids as names, are taken to be ImageNet's, and any of their synonyms is accepted.
        per_class: Number of pictures for an entry without a count.

    Raises:
        ValueError: Nothing is requested, a number is out of range, a name is unknown or ambiguous, or a count is below 1.
    """
    if not classes:
        raise ValueError('no classes: give at least one, a number or a name')
    found = _Names(num_classes, names)
    return [_request(entry, found, per_class) for entry in classes]


def _request(entry: int | str, names: '_Names', per_class: int) -> ClassRequest:
    if isinstance(entry, str):
        word, count = _split_count(entry, names, per_class)
        label = names.find(word)
    else:  # any integer, including numpy's
        label, count = names.by_number(str(_whole(entry))), per_class
    if count < 1:
        raise ValueError(f"class '{entry}': {count} pictures are asked for, give 1 or more")
    return ClassRequest(label, names.first(label), count)


def _whole(entry: object) -> int:
    try:
        return index(entry)  # type: ignore[arg-type]
    except TypeError as error:
        raise ValueError(f'class {entry!r}: expected a whole number or a name, in quotes') from error


def _split_count(entry: str, names: '_Names', per_class: int) -> tuple[str, int]:
    """Split 'NAME:N' into the name and N; a name that itself ends like that is not split."""
    if not re.search(r':-?\d+$', entry) or names.named(entry.strip()):
        return entry.strip(), per_class
    word, _, count = entry.rpartition(':')
    return word.strip(), int(count)


class _Names:
    """The names of a generator's classes."""

    def __init__(self, num_classes: int, names: Sequence[str] | None) -> None:
        self.num_classes, self.own = num_classes, names or ()
        self.exact: _Labels = defaultdict(list)
        self.lower: _Labels = defaultdict(list)
        self.first_names: dict[int, str] = {}
        anonymous = not names or are_wordnet_ids(names)
        for table in (IMAGENET_CATEGORIES if num_classes == 1000 and anonymous else ()), self.own:
            for label, name in enumerate(table):
                self._add(label, str(name))

    def _add(self, label: int, name: str) -> None:
        for part in dict.fromkeys([name.strip(), *map(str.strip, name.split(','))]):
            for table, key in ((self.exact, part), (self.lower, part.lower())):
                if label not in table[key]:
                    table[key].append(label)
        self.first_names.setdefault(label, name.split(',')[0].strip().lower())

    def first(self, label: int) -> str:
        """The first name of a class, or its number."""
        return self.first_names.get(label, str(label))

    def named(self, word: str) -> list[int]:
        """The classes that have this name."""
        return self.exact.get(word) or self.lower.get(word.lower()) or []

    def find(self, word: str) -> int:
        """The class that a string stands for."""
        if word.startswith(_BY_LABEL) and re.fullmatch(r'-?\d+', word[len(_BY_LABEL) :]):
            return self.by_number(word[len(_BY_LABEL) :])
        if word.startswith(_BY_NAME):
            return self._by_name(word[len(_BY_NAME) :].strip())
        return self._number_or_name(word) if re.fullmatch(r'-?\d+', word) else self._by_name(word)

    def by_number(self, word: str) -> int:
        """Convert a string to a label and check its range."""
        if not 0 <= int(word) < self.num_classes:
            last = self.num_classes - 1
            raise ValueError(f'class {word} is out of range: the generator has {self.num_classes} classes, 0 to {last}')
        return int(word)

    def _number_or_name(self, word: str) -> int:
        number = int(word)
        in_range, named = 0 <= number < self.num_classes, self.named(word) or self._of_this_value(number)
        if named and (not in_range or named == [number]):
            return self._only(word, named)
        if not named and in_range and self._is_other_number(number):
            raise ValueError(
                f"class '{word}': none has this name, and the one labelled {number} is named '{self.own[number]}': ask for "
                f'{_BY_LABEL}{number}, or give the name of another'
            )
        if named and in_range:
            other = ' and '.join(str(label) for label in named if label != number)
            raise ValueError(
                f"class '{word}' is the name of the class labelled {other}, and {number} the label of "
                f"'{class_name(self.own, number) or self.first(number)}': ask for {_BY_NAME}{word} or {_BY_LABEL}{number}"
            )
        return self.by_number(word)

    def _of_this_value(self, number: int) -> list[int]:
        """The classes whose name is this number in another notation, such as 007."""
        return [label for label, name in enumerate(self.own) if re.fullmatch(r'\d+', str(name)) and int(name) == number]

    def _is_other_number(self, label: int) -> bool:
        name = class_name(self.own, label) or ''
        return re.fullmatch(r'\d+', name) is not None and int(name) != label

    def _by_name(self, word: str) -> int:
        found = self.named(word)
        if found:
            return self._only(word, found)
        if not self.lower:
            reason = f'neither config nor checkpoint names the classes, give a number below {self.num_classes}'
            raise ValueError(f"class '{word}': {reason}")
        raise ValueError(f"unknown class '{word}': expected a number below {self.num_classes} or a name{self._alike(word)}")

    def _alike(self, word: str) -> str:
        """'; did you mean …?' with up to three names that are like `word`; else the first names in brackets."""
        close = get_close_matches(word.lower(), self.lower, n=3, cutoff=0.6)
        if close:
            return f'; did you mean {_quoted(close)}?'
        first = list(self.first_names.values())
        return f' ({_quoted(first[:3])}{", …" * (len(first) > 3)})'

    def _only(self, word: str, found: list[int]) -> int:
        if len(found) > 1:
            raise ValueError(f"class '{word}' is the name of several, {' and '.join(map(str, found))}: give the number")
        return found[0]


def _quoted(names: Sequence[str]) -> str:
    return ', '.join(f"'{name}'" for name in names)
