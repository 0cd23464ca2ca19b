"""Find the newest whole checkpoint of a work folder."""

import re
from pathlib import Path
from typing import NamedTuple

from usp_mm.fileio.weights import read_checkpoint

#: File of a work folder that names its last checkpoint.
LAST = 'last_checkpoint'
#: Files of CheckpointHook, also with a `filename_tmpl` of its own; those of `save_best` aside.
_NUMBERED = re.compile(r'(?!best_)(?P<kind>.*?)(?P<number>\d+)\.pth')


class Newest(NamedTuple):
    """The newest whole checkpoint of a folder if there is one, and a line for each newer one that is not whole."""

    path: Path | None
    passed_over: list[str]


def checkpoints_in(folder: Path) -> dict[str, list[Path]]:
    """The checkpoints of training runs in a folder by the kind of their names ('epoch_', 'iter_'), oldest first.

    Those that `save_best` keeps are left out: they hold no optimizer.
    """
    found: dict[str, list[tuple[int, int, Path]]] = {}
    for path in folder.glob('*.pth'):
        if match := _NUMBERED.fullmatch(path.name):
            found.setdefault(match['kind'], []).append((int(match['number']), path.stat().st_mtime_ns, path))
    return {kind: [path for *_, path in sorted(ordered)] for kind, ordered in found.items()}


def named_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that `last_checkpoint` names: the file of that name in the folder if there is one; None without a name."""
    if not (folder / LAST).is_file() or not (name := (folder / LAST).read_text().strip()):
        return None
    inside = folder / Path(name).name
    return inside if inside.exists() else folder / name


def newest_checkpoint(folder: Path) -> Newest:
    """The checkpoint of a folder with the most iterations that reads and whose checksums are right.

    A checkpoint elsewhere that `last_checkpoint` names counts too.

    Raises:
        FileNotFoundError: The folder has no checkpoint, and `last_checkpoint` names one that does not exist.
        ValueError: None of the checkpoints is whole.
    """
    kinds, named = checkpoints_in(folder), named_checkpoint(folder)
    if named is not None and named.parent != folder and (named.exists() or not kinds):
        kinds['elsewhere'] = [named]
        if not named.exists():
            raise FileNotFoundError(f"{folder / LAST} names '{named}', which is not there: give --resume FILE")
    passed_over: list[str] = []
    while kinds := {kind: paths for kind, paths in kinds.items() if paths}:
        heads = {kind: _iterations(paths[-1]) for kind, paths in kinds.items()}
        kind = max(heads, key=lambda kind: heads[kind])
        path = kinds[kind].pop()
        try:
            read_checkpoint(path, mmap=True)
        except ValueError as error:
            passed_over.append(f'passed over a checkpoint that is not whole: {error}')
        else:
            return Newest(path, passed_over)
    if passed_over:
        raise ValueError(f'{folder} has no whole checkpoint ({passed_over[0].partition(": ")[2]}): start anew with --overwrite')
    return Newest(None, [])


def _iterations(path: Path) -> float:
    """How long a checkpoint was trained; infinite for one that can't be read, so that it is not passed over unseen."""
    try:
        meta = read_checkpoint(path, mmap=True, verify=False).get('meta')
    except ValueError:
        return float('inf')
    return meta.get('iter', 0) if isinstance(meta, dict) else 0
