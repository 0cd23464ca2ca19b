"""What a training on own pictures was begun with, and which of its parts are finished."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from usp_mm.fileio.atomic import read_json, write_json

from .plan import Plan

_BEGUN = 'plan.json'
#: Held while a training runs; the file stays.
LOCK = '.lock'
#: All that a training writes into its folder.
_OURS = (
    'pictures', 'vae', 'latents', 'pretrain', 'probe', 'knn', 'generate', 'encoder', 'generator', 'done', 'logs',
    _BEGUN, 'restoration.png', 'samples.png', 'curves.png', 'summary.json',
)  # fmt: skip


class Record:
    """The record in a training's folder: `plan.json`, and `done/PART.json` for each finished part, written last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begun(self, asked: dict[str, Any]) -> Plan | None:
        """The plan of the training in the folder; None if there is none.

        Args:
            asked: The folder of pictures, the digest of its contents, and the options of the command.

        Raises:
            ValueError: The folder holds a training that was asked for otherwise, or something else.
        """
        begun = read_json(self.folder / _BEGUN, f'add --overwrite to begin anew in {self.folder}')
        if begun is None:
            if self._holds_something():
                raise ValueError(
                    f"'{self.folder}' holds something else than a training of `usp train FOLDER`: give another --out"
                )
            return None
        for name, value in asked.items():
            if begun['asked'].get(name) != value:
                was = 'other pictures' if name == 'digest' else f'{name}={begun["asked"].get(name)}'
                now = 'the folder has changed' if name == 'digest' else f'{name}={value}'
                raise ValueError(
                    f"'{self.folder}' was begun with {was}, now {now}: ask for the same, give another --out, or "
                    '--overwrite to begin anew'
                )
        return Plan(**begun['plan'])

    def _holds_something(self) -> bool:
        return self.folder.is_dir() and any(path.name != LOCK for path in self.folder.iterdir())

    def begin(self, asked: dict[str, Any], plan: Plan) -> None:
        """Record what is asked for and the plan."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / _BEGUN, dict(asked=asked, plan=asdict(plan)))

    def check_own(self) -> None:
        """Raise a ValueError if the folder holds something, but no training."""
        if self._holds_something() and not (self.folder / _BEGUN).is_file():
            raise ValueError(f"--overwrite: '{self.folder}' holds no training of `usp train FOLDER`: give another --out")

    def clear(self) -> None:
        """Delete a training's files; files that it did not write stay."""
        for name in sorted(_OURS, key=lambda name: name == _BEGUN):  # the record goes last
            path = self.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def result(self, part: str) -> dict[str, Any] | None:
        """What a finished part returned; None if it is not finished."""
        return read_json(self.folder / 'done' / f'{part}.json', f'add --overwrite to begin anew in {self.folder}')

    def finish(self, part: str, result: dict[str, Any]) -> None:
        """Mark a part as finished."""
        (self.folder / 'done').mkdir(exist_ok=True)
        write_json(self.folder / 'done' / f'{part}.json', result)
