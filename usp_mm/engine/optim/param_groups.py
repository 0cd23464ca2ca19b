"""Merge equal parameter groups of an optimizer."""

import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from usp_mm.registry import HOOKS

from ..runner_parts import schedulers_of, unwrapped, wrappers
from .hyper_parameters import base_values
from .sharding import ShardedOptimizer

#: The names of the parameters of each group.
Layout = list[list[str]]
#: What identifies the parameters of a group; the rest of a group are options.
LABELS = ('params', 'param_name', 'param_names')
#: Attributes of MMEngine's schedulers that are lists of a value a group.
_PER_GROUP = ('base_values', '_last_value', 'min_values')


@HOOKS.register_module()
class MergeParamGroupsHook(Hook):
    """Merge parameter groups whose options are all equal, before the first iteration of training.

    With `paramwise_cfg`, the constructors of MMEngine and mmpretrain make one group per parameter, and an optimizer step takes
    several times as long on the host. Merging works for any constructor, and for one optimizer or several. Every parameter
    keeps its options; groups are ordered by their first parameters, and parameters keep their order. A merged group lists the
    names of its parameters under `param_names`, as torch does for named parameters. An optimizer that estimates a quantity per
    group estimates it per merged group.

    The log has one line per group, in place of MMEngine's line per parameter.

    Args:
        enable: If False, groups and log stay as MMEngine makes them.

    Attributes:
        constructed: Names of the parameters in each group as the optimizer wrapper's constructor made it.
    """

    priority = 'HIGH'  # before hooks that look at groups

    def __init__(self, enable: bool = True) -> None:
        self.enable = enable
        self.constructed: WeakKeyDictionary[OptimWrapper, Layout] = WeakKeyDictionary()
        if enable:
            MMLogger.get_current_instance().addFilter(_not_of_one_parameter)  # a Runner builds hooks before optimizers

    def before_run(self, runner: Runner) -> None:
        runner.logger.removeFilter(_not_of_one_parameter)
        if not self.enable or not isinstance(runner._train_loop, BaseLoop):
            return
        for name, wrapper in wrappers(runner).items():
            if wrapper not in self.constructed:
                self.constructed[wrapper] = layout_of(wrapper, unwrapped(runner))
                self._merge(runner, name, wrapper)
        _log_frozen(runner)

    def _merge(self, runner: Runner, name: str, wrapper: OptimWrapper) -> None:
        groups, place = wrapper.optimizer.param_groups, f'optim_wrapper.{name}' if name else 'optim_wrapper'
        before = len(groups)
        if before == 1:
            return
        reason = _not_to_merge(runner, wrapper.optimizer)
        if not reason:
            merge_equal_groups(wrapper, schedulers_of(runner, name), self.constructed[wrapper])
            if isinstance(wrapper.optimizer, ShardedOptimizer):
                wrapper.optimizer.reshard()
        result = f'not merged: {reason}' if reason else f'merged into {len(groups)}, equal in every option'
        runner.logger.info(f'{place}: {before} parameter groups, {result}')
        for i, group in enumerate(groups):
            runner.logger.info(f'{place}: group {i}: {len(group["params"])} parameters, {_rates_as_text(group)}')


def layout_of(wrapper: OptimWrapper, model: nn.Module) -> Layout:
    """Names of the parameters in each group of an optimizer; a number for a parameter that is not the model's."""
    known = {id(param): name for name, param in model.named_parameters()}
    layout: Layout = []
    for group in wrapper.optimizer.param_groups:
        start = sum(map(len, layout))
        names = [known.get(id(param), f'#{i}') for i, param in enumerate(group['params'], start)]
        layout.append(list(group.get('param_names', names)))
    return layout


def merge_equal_groups(wrapper: OptimWrapper, schedulers: list[_ParamScheduler], layout: Layout) -> None:
    """Merge the equal groups of an optimizer that has taken no step, and what its schedulers keep per group, in place.

    Args:
        wrapper: Wrapper of the optimizer.
        schedulers: Schedulers of the optimizer.
        layout: Names of the parameters in each group.
    """
    groups = wrapper.optimizer.param_groups
    kept = [vars(scheduler)[key] for scheduler in schedulers for key in _PER_GROUP if key in vars(scheduler)]
    options = [(_options(group), [values[i] for values in kept]) for i, group in enumerate(groups)]
    merged: list[list[int]] = []
    for i, option in enumerate(options):
        same = next((members for members in merged if _equal(options[members[0]], option)), None)
        merged.append([i]) if same is None else same.append(i)
    count = len(groups)
    if len(merged) == count:
        return
    whole = []
    for members in merged:
        first = groups[members[0]]
        first['params'] = [param for i in members for param in groups[i]['params']]
        first.pop('param_name', None)
        first['param_names'] = [name for i in members for name in layout[i]]
        whole.append(first)
    groups[:] = whole  # in place: an optimizer that wraps another may share the list
    for scheduler in schedulers:
        pick_groups(vars(scheduler), [members[0] for members in merged], count)


def pick_groups(scheduler: dict[str, Any], places: list[int], count: int, base: bool = True) -> None:
    """Keep only the values of the groups at `places` in a scheduler or its saved state.

    Args:
        scheduler: Attributes or saved state of a scheduler, changed in place.
        places: Indices of the groups to keep.
        count: Number of groups before.
        base: Whether to keep the values that MMEngine's wrapper adds after those of the groups, which are the config's own.
    """
    for key in _PER_GROUP:
        values = scheduler.get(key)
        if values is not None and len(values) in (count, count + 1):
            scheduler[key] = [*(values[place] for place in places), *(values[count:] if base else ())]


def _rates_as_text(group: dict[str, Any]) -> str:
    """Learning rate and weight decay of a group before any schedule, as text."""
    base = base_values(group)
    return ', '.join(f'{key}={base[key]:.4g}' for key in ('lr', 'weight_decay') if isinstance(base.get(key), int | float))


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in LABELS}


def _equal(one: Any, other: Any) -> bool:
    """Whether two options are equal; tensors are equal only if they are the same object."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return one is other
    return bool(one == other)


def _not_to_merge(runner: Runner, optimizer: Optimizer) -> str:
    """Why the groups of an optimizer must stay as they are; empty if they can be merged."""
    if not isinstance(runner, Runner):
        return f'{type(runner).__name__} may have handed them on'
    if isinstance(optimizer, ShardedOptimizer):
        return ''
    inner = [value for value in vars(optimizer).values() if isinstance(value, Optimizer)]
    if any(one.param_groups is not optimizer.param_groups for one in inner):
        return f'the {type(inner[0]).__name__} inside {type(optimizer).__name__} has groups of its own'
    return ''


def _log_frozen(runner: Runner) -> None:
    trained = {id(param) for wrapper in wrappers(runner).values() for param in _params(wrapper)}
    params = list(unwrapped(runner).parameters())
    left_out = sum(not param.requires_grad and id(param) not in trained for param in params)
    if left_out:
        runner.logger.info(f'{left_out} of the {len(params)} parameters are in no optimizer: requires_grad=False')


def _params(wrapper: OptimWrapper) -> Iterable[Tensor]:
    return (param for group in wrapper.optimizer.param_groups for param in group['params'])


def _not_of_one_parameter(record: logging.LogRecord) -> bool:
    """Filter out MMEngine's log lines about single parameters."""
    message = record.getMessage()
    return not (message.startswith('paramwise_options -- ') or message.endswith('is skipped since its requires_grad=False'))
