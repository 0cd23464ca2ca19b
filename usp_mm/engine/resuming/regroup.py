"""Convert a checkpoint's optimizer state to the parameter groups of the run that resumes from it."""

from itertools import chain
from typing import Any, NamedTuple

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import nn

from ..optim.hyper_parameters import hyper_parameter_changes, hyper_parameter_names, optimizer_state
from ..optim.param_groups import LABELS, Layout, MergeParamGroupsHook, layout_of, pick_groups
from ..runner_parts import of_optimizer, unwrapped
from .run_settings import saved_schedulers


class Layouts(NamedTuple):
    """The parameters in each group of a checkpoint and of this run."""

    saved: Layout
    current: Layout

    def pairs(self) -> list[tuple[int, int]]:
        """For all parameters, the distinct pairs (index of the checkpoint's group, index of this run's group)."""
        saved = {name: place for place, names in enumerate(self.saved) for name in names}
        pairs = ((saved[name], place) for place, names in enumerate(self.current) for name in names)
        return list(dict.fromkeys(pairs))


def layouts(runner: Runner, wrapper: OptimWrapper, saved: dict[str, Any]) -> Layouts | None:
    """The groups of a saved optimizer state and of an optimizer; None if their parameters differ.

    A state that names its parameters is matched by name. A state without names is matched by the order in which the optimizer
    wrapper's constructor takes the parameters, if the constructor makes groups of the same sizes.
    """
    current = layout_of(wrapper, unwrapped(runner))
    hooks = (hook for hook in runner.hooks if isinstance(hook, MergeParamGroupsHook))
    constructed = next((hook.constructed[wrapper] for hook in hooks if wrapper in hook.constructed), current)
    groups = saved['param_groups']
    sizes = [len(group['params']) for group in groups]
    named: Layout = [group.get('param_names') or [] for group in groups]
    if list(map(len, named)) == sizes:
        same = sorted(chain(*named)) == sorted(chain(*current))
        based = 'base_param_settings' in saved or wrapper.base_param_settings is None
        return Layouts(named, current) if same and based else None
    return Layouts(constructed, current) if sizes == list(map(len, constructed)) else None


def only_in_one(wrapper: OptimWrapper, model: nn.Module, saved: dict[str, Any]) -> str:
    """Text that names a parameter only the checkpoint has, and one only this run has; empty if the state has no names."""
    theirs = {name for group in saved['param_groups'] for name in group.get('param_names') or ()}
    ours = set(chain(*layout_of(wrapper, model)))
    if not theirs:
        return ''
    alone = (('the checkpoint', sorted(theirs - ours)), ('this run', sorted(ours - theirs)))
    return ''.join(f'; only {who} has {names[0]}' for who, names in alone if names)


def changed_options(runner: Runner, wrapper: OptimWrapper, saved: dict[str, Any], layouts: Layouts, name: str) -> list[str]:
    """One line for each hyper-parameter that changed for any parameter, or in the config's own values."""
    pairs = layouts.pairs()
    ours = [wrapper.optimizer.param_groups[current] for _, current in pairs]
    theirs = [saved['param_groups'][place] for place, _ in pairs]
    if 'base_param_settings' in saved and wrapper.base_param_settings is not None:
        ours, theirs = [*ours, wrapper.base_param_settings], [*theirs, saved['base_param_settings']]
    names = hyper_parameter_names(wrapper.optimizer, runner.cfg.get('optim_wrapper')) - set(LABELS)
    return hyper_parameter_changes(theirs, ours, names, f'{name}.' if name else '')


def regroup(runner: Runner, wrapper: OptimWrapper, checkpoint: dict[str, Any], layouts: Layouts, name: str) -> None:
    """Rewrite the state of an optimizer and its schedulers in a checkpoint for this run's groups.

    Where several saved groups become one, the hyper-parameters of the first are used.

    Raises:
        ValueError: Saved groups that become one hold different optimizer values.
    """
    if layouts.saved == layouts.current:
        return
    saved = of_optimizer(checkpoint['optimizer'], name)
    names = hyper_parameter_names(wrapper.optimizer, runner.cfg.get('optim_wrapper'))
    old, firsts = saved['param_groups'], []
    groups: list[dict[str, Any]] = []
    numbers = chain.from_iterable(group['params'] for group in old)
    indices = dict(zip(chain(*layouts.saved), numbers, strict=True))
    for place, ours in enumerate(wrapper.optimizer.param_groups):
        members = [theirs for theirs, current in layouts.pairs() if current == place]
        _check_one_state([optimizer_state(old[member], names) for member in members])
        labels = {key: ours[key] for key in LABELS[1:] if key in ours}
        options = {key: value for key, value in old[members[0]].items() if key not in LABELS}
        start = sum(len(group['params']) for group in groups)
        groups.append({**options, 'params': list(range(start, start + len(ours['params']))), **labels})
        firsts.append(members[0])
    order, state = [indices[param] for param in chain(*layouts.current)], saved['state']
    others = {key: value for key, value in state.items() if key not in indices.values()}
    saved['state'] = {**{new: state[index] for new, index in enumerate(order) if index in state}, **others}
    saved['param_groups'] = groups
    if wrapper.base_param_settings is None:
        saved.pop('base_param_settings', None)
    for scheduler in saved_schedulers(checkpoint, name):
        pick_groups(scheduler, firsts, len(old), wrapper.base_param_settings is not None)


def _check_one_state(states: list[dict[str, Any]]) -> None:
    for key in sorted({key for state in states for key in state}):
        first, *others = [state.get(key) for state in states]
        other = next((value for value in others if value != first), first)
        if other is not first:
            raise ValueError(
                f"the optimizer's {key} is {first} in one of the checkpoint's parameter groups and {other} in another, which "
                'this run merges: leave its groups as they are with default_hooks.merge_param_groups.enable=False'
            )
