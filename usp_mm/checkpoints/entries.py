"""Tensors on their way from one format to another, each with the names it came from; and what became of all of them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """A tensor and where it is from.

    Attributes:
        value: the tensor.
        sources: names in the file that was read; none for what was computed.
        how: what was done to the numbers; '' where they are the file's.
    """

    value: Tensor
    sources: tuple[str, ...]
    how: str = ''


Entries = dict[str, Entry]


def renamed(entries: Mapping[str, Entry], new: Callable[[str], str]) -> Entries:
    """The same tensors under other names."""
    return {new(name): entry for name, entry in entries.items()}


def shapes_of(entries: Mapping[str, Entry]) -> dict[str, tuple[int, ...]]:
    """Name -> shape."""
    return {name: tuple(entry.value.shape) for name, entry in entries.items()}


@dataclass
class Checkpoint:
    """A file's content under official names.

    Attributes:
        kind: a key of `KINDS`.
        sets: 'model' and 'ema', or one of them.
        named: whether the file itself says which of the two its weights are.
        beside: tensors that no official network has a place for, by this package's names; the average's count of updates.
        dropped: (name in the file, reason).
        notes: what the user should know.
        facts: what else is known of the network: num_heads, num_classes, dataset_meta, vae, flow (matching).
    """

    kind: str
    sets: dict[str, Entries]
    named: bool = False
    beside: Entries = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def drop(self, entries: Iterable[Entry], reason: str) -> None:
        """Note that these come to an end here."""
        self.dropped += [(source, reason) for entry in entries for source in entry.sources]

    def sources(self) -> set[str]:
        """Every name of the file that is still in, or noted as dropped."""
        kept = {source for entries in (*self.sets.values(), self.beside) for x in entries.values() for source in x.sources}
        return kept | {name for name, _ in self.dropped}


@dataclass(frozen=True)
class ConversionReport:
    """What became of every tensor.

    Attributes:
        kind: of the file, a key of `KINDS`.
        target: a key of `TARGETS`.
        written: name in the new file -> names in the old one; none for what was computed.
        changed: name in the new file -> what was done to its numbers, for those that are not the old ones bit for bit.
        dropped: name in the old file -> reason.
        notes: what the user should know.
    """

    kind: str
    target: str
    written: dict[str, tuple[str, ...]]
    changed: dict[str, str]
    dropped: dict[str, str]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str, int]]:
        """(what happened, old names, new names, number of tensors), blocks of the same names in one row."""
        counts: dict[tuple[str, str, str], int] = {}
        for name, sources in self.written.items():
            what = self.changed.get(name) or ('used' if sources == (name,) else 'renamed' if sources else 'computed')
            old = sorted({_pattern(source) for source in sources})
            key = (what, ', '.join(old[:3]) + (f', … ({len(old)})' if len(old) > 3 else ''), _pattern(name))
            counts[key] = counts.get(key, 0) + 1
        for name, reason in self.dropped.items():
            key = (f'dropped: {reason}', _pattern(name), '')
            counts[key] = counts.get(key, 0) + 1
        return [(*key, count) for key, count in counts.items()]

    def __str__(self) -> str:
        old = {source for sources in self.written.values() for source in sources}
        kinds = dict.fromkeys(self.changed.values())
        changes = ''.join(f', {sum(x == how for x in self.changed.values())} {how}' for how in kinds)
        return (
            f'{self.kind} -> {self.target}: {len(old)} of {len(old) + len(self.dropped)} tensors used, '
            f'{len(self.written)} written{changes}, {len(self.dropped)} dropped'
        )


def _pattern(name: str) -> str:
    """'blocks.N.attn.qkv.weight' of 'blocks.3.attn.qkv.weight'."""
    return re.sub(r'(blocks)\.\d+\.', r'\1.N.', name)
