"""Separate the hyper-parameters in an optimizer's parameter groups from the optimizer's own state."""

import inspect
from typing import Any

from torch.optim import Optimizer

#: Hyper-parameters that an optimizer may take through **kwargs, and what the constructors of MMEngine, mmpretrain and mmseg
#: put into groups.
_KNOWN = {
    *('lr', 'weight_decay', 'betas', 'momentum', 'eps'),
    *('lr_mult', 'decay_mult', 'lr_scale', 'layer_id', 'param_name', 'param_names', 'group_name'),
}


def hyper_parameter_names(optimizer: Optimizer, optim_wrapper: Any = None) -> set[str]:
    """Names of arguments of the optimizer, its base classes and any inner optimizers, and other usual names.

    This includes options that only `paramwise_cfg.custom_keys` of the config's `optim_wrapper` sets, which no constructor
    takes.
    """
    optimizers = [optimizer, *(value for value in vars(optimizer).values() if isinstance(value, Optimizer))]
    classes = {base for one in optimizers for base in type(one).__mro__ if issubclass(base, Optimizer)}
    named = _KNOWN.union(*(inspect.signature(base.__init__).parameters for base in classes))
    return named | (_custom_options(optim_wrapper) - optimizer.defaults.keys())


def _custom_options(optim_wrapper: Any) -> set[str]:
    if not isinstance(optim_wrapper, dict):
        return set()
    found = {option for options in (optim_wrapper.get('custom_keys') or {}).values() for option in options}
    return found.union(*(_custom_options(value) for value in optim_wrapper.values()))


def hyper_parameters(group: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The part of a group that follows from the config: `names`, and the values that schedulers change or store there."""
    moved = {key.removeprefix('initial_') for key in group if key.startswith('initial_')}
    found = (names | moved) - {'params'}
    return {key: value for key, value in group.items() if key in found or _of_schedule(key, found)}


def optimizer_state(group: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The part of a group that the optimizer itself counts or estimates, such as `step` of Lamb and `d` of Prodigy."""
    config = hyper_parameters(group, names)
    return {key: value for key, value in group.items() if key not in config and key != 'params'}


def hyper_parameter_changes(old: list[dict], new: list[dict], names: set[str], prefix: str) -> list[str]:
    """One line for each hyper-parameter of an optimizer's groups whose base value (before schedules) differs."""
    found: dict[str, list[tuple[Any, Any]]] = {}
    for group, other in zip(old, new, strict=True):
        theirs, ours = (base_values(hyper_parameters(part, names)) for part in (group, other))
        for key in ours.keys() & theirs.keys():
            if ours[key] != theirs[key]:
                found.setdefault(key, []).append((theirs[key], ours[key]))
    # the last of many groups: MMEngine's wrapper keeps the config's own values there
    return [f'{prefix}{key} {pairs[-1][0]} -> {pairs[-1][1]}' for key, pairs in sorted(found.items())]


def base_values(group: dict[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of a group as they were before any schedule."""
    base = {key: tuple(value) if isinstance(value, list) else value for key, value in group.items()}
    for key in [key for key in base if key.startswith('initial_')]:
        base[key.removeprefix('initial_')] = base.pop(key)
    if 'betas' in base and 'momentum' in base:  # where schedules of Adam's momentum work
        base['betas'] = (base.pop('momentum'), *base['betas'][1:])
    return base


def _of_schedule(key: str, names: set[str]) -> bool:
    prefix, _, name = key.partition('_')
    return prefix in ('initial', 'max', 'min') and name in names
