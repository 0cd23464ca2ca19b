"""Go on with more epochs or steps than a training was begun with."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .plan import Plan, probe_epochs
from .record import Record

#: Option -> the part whose training goes on, and the parts that begin anew because they start from its result.
LENGTHS: dict[str, tuple[str, tuple[str, ...]]] = {'epochs': ('pretrain', ('probe', 'generate')), 'steps': ('generate', ())}
#: Part -> what it makes of its training, which is made again.
_MADE = {'pretrain': ('restoration.png', 'encoder'), 'probe': ('knn',), 'generate': ('samples.png', 'generator')}


@dataclass(frozen=True)
class Longer:
    """A training that goes on for longer.

    Attributes:
        plan: The plan with the larger numbers.
        goes_on: Parts whose trainings go on from their last checkpoints.
        anew: Parts that begin anew.
        lines: What is done, for the user.
    """

    plan: Plan
    goes_on: tuple[str, ...]
    anew: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def parts(self) -> set[str]:
        """All parts that are run again."""
        return {*self.goes_on, *self.anew}

    def reopen(self, record: Record) -> None:
        """Delete what the parts made, except for the checkpoints of the trainings that go on."""
        for part in self.parts:
            (record.folder / 'done' / f'{part}.json').unlink(missing_ok=True)
            for name in (*_MADE[part], *((part,) if part in self.anew else ())):
                _delete(record.folder / name)


def lengthen(plan: Plan, sizes: Mapping[str, int | None], num: int, folder: Path, only: tuple[str, ...]) -> Longer:
    """Compare the epochs and steps that are asked for with those that a training was begun with.

    Args:
        plan: The plan of the training.
        sizes: 'epochs' and 'steps' that are asked for; None asks for the plan's.
        num: Number of training pictures.
        folder: The training's folder.
        only: The parts that are asked for.

    Raises:
        ValueError: A number is smaller than the plan's, or a part that a larger one concerns is not asked for.
    """
    more: dict[str, Any] = {
        name: value for name in LENGTHS if (value := sizes.get(name)) is not None and value != getattr(plan, name)
    }
    for name, value in more.items():
        if value < getattr(plan, name):
            raise ValueError(
                f"'{folder}' was begun with {name}={getattr(plan, name)}, now {name}={value}: a training goes on with more, "
                'not with fewer: ask for at least as many, give another --out, or --overwrite to begin anew'
            )
    begun = {part for part in _MADE if (folder / part).exists()}
    anew = {part for name in more for part in LENGTHS[name][1]} & begun
    goes_on = {LENGTHS[name][0] for name in more} & begun - anew
    for part in sorted(goes_on | anew):
        if part not in only:
            raise ValueError(f'--{next(iter(more))} {next(iter(more.values()))} runs {part} again: leave --only out, or add it')
    lines = tuple(_told(plan, name, value, anew) for name, value in more.items() if LENGTHS[name][0] in begun)
    if 'epochs' in more:
        more['probe_epochs'] = max(plan.probe_epochs, min(probe_epochs(num), more['epochs']))
    return Longer(replace(plan, **more), tuple(sorted(goes_on)), tuple(sorted(anew)), lines)


def _told(plan: Plan, name: str, value: int, anew: set[str]) -> str:
    line = f'{name} {getattr(plan, name):,} → {value:,}: '
    if (part := LENGTHS[name][0]) in anew:
        return f'{line}{part} begins anew'
    line += f'{part} goes on from its last checkpoint'
    if name == 'epochs':  # the generator's learning rate is constant
        line += ', at the learning rate that the longer schedule has there'
        line += f'; {" and ".join(sorted(anew, reverse=True))} begin anew from its encoder' if anew else ''
    return line


def _delete(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
