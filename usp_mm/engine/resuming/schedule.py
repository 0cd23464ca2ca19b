"""Compute an optimizer's hyper-parameters after a number of epochs and iterations."""

import copy
from typing import Any

from mmengine.optim import _ParamScheduler

Groups = list[dict[str, Any]]

#: What changes in a scheduler while it is stepped; the rest of its state follows from the config.
PROGRESS = {'last_step', '_global_step', '_last_value', 'best', 'num_bad_epochs', 'cooldown_counter'}


class _StandIn:
    """Replaces an optimizer with many parameter groups by one with few: schedulers treat equal groups alike."""

    def __init__(self, groups: Groups) -> None:
        self.param_groups, self._global_step = groups, 0

    def step(self) -> None:
        raise AssertionError('a stand-in has no parameters')

    step._with_counter = True  # type: ignore[attr-defined]  # schedulers look for it


def advance(
    groups: Groups, schedulers: list[_ParamScheduler], epochs: int, epoch_length: int, iterations: int
) -> tuple[Groups, list[dict[str, Any]]]:
    """Hyper-parameters and scheduler states after `epochs` whole epochs and `iterations` more.

    The steps are those of MMEngine's ParamSchedulerHook, so the values equal an uninterrupted run's bit for bit. Neither the
    schedulers nor the groups change. Schedulers that need a validation score (ReduceOnPlateau…) are not stepped.

    Args:
        groups: Hyper-parameters of each group, as the newly built schedulers left them.
        schedulers: Newly built schedulers of these groups.
        epochs: Number of whole epochs.
        epoch_length: Iterations per epoch.
        iterations: Number of iterations after the whole epochs.
    """
    places, which = _distinct(groups, schedulers)
    optimizer = _StandIn([dict(groups[place]) for place in places])
    copies = [_copy(scheduler, optimizer, places) for scheduler in schedulers]
    stepped = [scheduler for scheduler in copies if not needs_score(scheduler)]
    each_iteration = [scheduler.step for scheduler in stepped if not scheduler.by_epoch]
    each_epoch = [scheduler.step for scheduler in stepped if scheduler.by_epoch]
    for epoch in range(epochs + 1):
        for _ in range(epoch_length if epoch < epochs else iterations) if each_iteration else ():
            for step in each_iteration:
                step()
        for step in each_epoch if epoch < epochs else ():
            step()
    moved = {scheduler.param_name for scheduler in schedulers} | {'betas'}  # Adam's momentum
    values = [
        {**group, **_part(optimizer.param_groups[i], moved & group.keys())} for group, i in zip(groups, which, strict=True)
    ]
    return values, [_state(*pair, which) for pair in zip(schedulers, copies, strict=True)]


def needs_score(scheduler: _ParamScheduler) -> bool:
    """Whether a scheduler's steps depend on validation scores, so that they cannot be repeated."""
    return getattr(scheduler, 'need_val_args', False)


def constants(scheduler: _ParamScheduler | dict[str, Any]) -> dict[str, Any]:
    """The part of a scheduler, or of its saved state, that follows from the config: all but progress and the groups' values."""
    state = scheduler if isinstance(scheduler, dict) else scheduler.state_dict()
    left_out = PROGRESS | {'base_values', 'verbose'}
    return {key: _comparable(value) for key, value in state.items() if key not in left_out and not callable(value)}


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    return [_comparable(item) for item in value] if isinstance(value, list | tuple) else value


def _distinct(groups: Groups, schedulers: list[_ParamScheduler]) -> tuple[list[int], list[int]]:
    """The index of one group for each distinct set of scheduled values, and for each group the number of its set."""
    names = {scheduler.param_name for scheduler in schedulers}
    keys = [f'{prefix}{name}' for name in sorted(names) for prefix in ('', 'initial_', 'max_', 'min_')]
    keys.append('betas')
    places: dict[tuple, int] = {}
    values = [tuple(str(group.get(key)) for key in keys) for group in groups]
    for place, value in enumerate(values):
        places.setdefault(value, place)
    order = list(places)
    return list(places.values()), [order.index(value) for value in values]


def _copy(scheduler: _ParamScheduler, optimizer: _StandIn, places: list[int]) -> _ParamScheduler:
    """A scheduler in the same state that steps the stand-in."""
    copied = copy.copy(scheduler)
    copied.optimizer, copied.verbose = optimizer, False
    if hasattr(scheduler, 'base_values'):
        copied.base_values = [scheduler.base_values[place] for place in places]
    return copied


def _state(scheduler: _ParamScheduler, copied: _ParamScheduler, which: list[int]) -> dict[str, Any]:
    """The state dict of `copied` for all groups."""
    last = scheduler._last_value if needs_score(scheduler) else [copied._last_value[i] for i in which]
    kept = {key: value for key, value in vars(scheduler).items() if key in ('base_values', 'verbose')}
    return {**copied.state_dict(), **kept, '_last_value': last}


def _part(group: dict[str, Any], keys: set[str]) -> dict[str, Any]:
    return {key: group[key] for key in keys}
