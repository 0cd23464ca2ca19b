"""Report of a transfer: what happened to every tensor, in full and as one line."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .encoder import block_part

Grid = tuple[int, int]


@dataclass(frozen=True)
class TransferReport:
    """Sorted names of all tensors in the checkpoint and the model, by what happened to them.

    Attributes:
        taken: Tensors of the model that were filled from the checkpoint.
        resized: Tensors of `taken` that were resized -> (grid in the checkpoint, grid of the model).
        dropped: Tensors of the checkpoint that have no place in the model or were left out as requested.
        random: Tensors of the model that kept their initialisation.
    """

    taken: tuple[str, ...]
    resized: dict[str, tuple[Grid, Grid]]
    dropped: tuple[str, ...]
    random: tuple[str, ...]

    def with_dropped(self, names: Iterable[str]) -> 'TransferReport':
        """A copy with more names in `dropped`."""
        return replace(self, dropped=tuple(sorted({*self.dropped, *names})))

    def __str__(self) -> str:
        sizes = [f'{name} {a[0]}x{a[1]} to {b[0]}x{b[1]}' for name, (a, b) in self.resized.items()]
        return (
            f'{len(self.taken)} tensors taken: {group_names(self.taken)}; resized: {", ".join(sizes) or "none"}; '
            f'dropped: {group_names(self.dropped)}; left as initialised: {group_names(self.random)}'
        )


def group_names(names: Iterable[str]) -> str:
    """Summarise names by block and by first part, with numbers of tensors: 'blocks 0-11 attn, mlp (96), x_embedder (2)'."""
    blocks: dict[int, set[str]] = defaultdict(set)
    counts: dict[int | str, int] = defaultdict(int)
    for name in names:
        block = block_part(name)
        counts[block[0] if block else name.split('.')[0]] += 1
        if block:
            blocks[block[0]].add(block[1])

    alike: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, parts in sorted(blocks.items()):
        alike[tuple(sorted(parts))].append(index)
    groups = [
        f'blocks {_ranges(indices)} {", ".join(parts)} ({sum(counts[i] for i in indices)})' for parts, indices in alike.items()
    ]
    groups += [f'{key} ({count})' for key, count in counts.items() if isinstance(key, str)]
    return ', '.join(groups) or 'none'


def _ranges(indices: list[int]) -> str:
    """[0, 1, 2, 5] -> '0-2, 5'."""
    starts = [i for i in indices if i - 1 not in indices]
    ends = [i for i in indices if i + 1 not in indices]
    return ', '.join(str(a) if a == b else f'{a}-{b}' for a, b in zip(starts, ends, strict=True))
