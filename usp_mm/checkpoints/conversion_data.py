"""Data structures of a conversion: tensors with the names that they came from, and the report on all of them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """A tensor and its origin.

    Attributes:
        value: The tensor.
        sources: Names in the source file; empty for a computed tensor.
        how: How the values were changed; '' if they are those of the file.
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
        kind: Kind of the file, a key of `KINDS`.
        sets: Sets of weights, 'model' or 'ema' or both.
        named: Whether the file itself says which of the two its weights are.
        beside: Tensors under this package's names for which official networks have no place, and the count of EMA updates.
        dropped: Pairs (name in the file, reason).
        notes: Notes for the user.
        facts: Further facts on the network: num_heads, num_classes, dataset_meta, vae, and flow (whether flow matching).
    """

    kind: str
    sets: dict[str, Entries]
    named: bool = False
    beside: Entries = field(default_factory=dict)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict = field(default_factory=dict)

    def drop(self, entries: Iterable[Entry], reason: str) -> None:
        """Record entries as dropped, with a reason."""
        self.dropped += [(source, reason) for entry in entries for source in entry.sources]

    def sources(self) -> set[str]:
        """All names in the source file, of tensors that are still here or recorded as dropped."""
        kept = {source for entries in (*self.sets.values(), self.beside) for x in entries.values() for source in x.sources}
        return kept | {name for name, _ in self.dropped}


@dataclass(frozen=True)
class ConversionReport:
    """Report on what happened to every tensor.

    Attributes:
        kind: Kind of the old file, a key of `KINDS`.
        target: Format of the new file, a key of `TARGETS`.
        written: Name in the new file -> names in the old one; empty for a computed tensor.
        changed: Name in the new file -> how its values were changed, for tensors that are not the same bit for bit.
        dropped: Name in the old file -> reason.
        notes: Notes for the user.
    """

    kind: str
    target: str
    written: dict[str, tuple[str, ...]]
    changed: dict[str, str]
    dropped: dict[str, str]
    notes: tuple[str, ...]

    def rows(self) -> list[tuple[str, str, str, int]]:
        """Rows (what happened, old names, new names, number of tensors), in which blocks with equal names share a row."""
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
    """The name without the block's number: 'blocks.3.attn.qkv.weight' -> 'blocks.N.attn.qkv.weight'."""
    return re.sub(r'(blocks)\.\d+\.', r'\1.N.', name)
