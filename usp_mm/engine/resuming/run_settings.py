"""The settings of a run that may change when it is resumed, and the lines that say which did."""

from typing import Any

from mmengine.dist import get_world_size
from mmengine.optim import _ParamScheduler
from mmengine.runner import Runner

from ..checkpointing.checkpoint_data import plain
from ..optim.sharding import inner_class
from ..runner_parts import accumulative_counts, batch_size, by_epoch, of_optimizer, schedulers_of, wrappers
from .schedule import constants

#: Settings and what they mean, in the order in which their changes are logged.
MEANINGS = {
    'batch_size': 'samples a process and iteration',
    'world_size': 'processes',
    'accumulative_counts': 'iterations an optimizer step',
    'iters_per_epoch': 'iterations an epoch',
    'max_epochs': 'epochs',
    'max_iters': 'iterations',
    'optim_wrapper': 'optimizer wrapper',
}


def saved_schedulers(checkpoint: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """The states of an optimizer's schedulers in a checkpoint; empty if it has none."""
    states = checkpoint.get('param_schedulers')
    return list(of_optimizer(states, name)) if states else []


def training_settings(runner: Runner) -> dict[str, Any]:
    """The settings of a runner whose optimizer and schedulers were just built: numbers, strings, and lists and dicts of them.

    Keys: those of `MEANINGS`, with None where they do not apply; `optimizers`, their class names, also where processes share
    their state; `param_scheduler` as in the config, None if unknown; `schedulers`, for each built scheduler the values that
    follow from the config, with its class name
    as `type`. Hyper-parameters are in the optimizer's state instead.
    """
    epochs = by_epoch(runner)
    found = wrappers(runner)
    counts = [accumulative_counts(wrapper) for wrapper in found.values()]
    return dict(
        batch_size=batch_size(runner.train_dataloader),
        world_size=get_world_size(),
        accumulative_counts=counts[0] if len(counts) == 1 else counts,
        iters_per_epoch=len(runner.train_dataloader) if epochs else None,
        max_epochs=runner.max_epochs if epochs else None,
        max_iters=None if epochs else runner.max_iters,
        optim_wrapper=[type(wrapper).__name__ for wrapper in found.values()],
        optimizers=[inner_class(wrapper.optimizer) for wrapper in found.values()],
        param_scheduler=plain(runner.cfg.get('param_scheduler')),
        schedulers={name: [_described(scheduler) for scheduler in schedulers_of(runner, name)] for name in found},
    )


def guessed_settings(checkpoint: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a checkpoint that does not store them: what MMEngine saves, and this run's values for the rest."""
    info = checkpoint['message_hub']['runtime_info']
    found = dict(settings)
    if settings['max_epochs'] is None:
        found['max_iters'] = info.get('max_iters', settings['max_iters'])
    elif info.get('max_epochs') and info.get('max_iters'):
        found.update(max_epochs=info['max_epochs'], iters_per_epoch=info['max_iters'] // info['max_epochs'])
    found.update(schedulers={}, param_scheduler=None)
    for name, ours in settings['schedulers'].items():
        states: list[dict] = saved_schedulers(checkpoint, name)
        known = [*ours, *({} for _ in states)]  # a saved state does not contain its class or functions
        found['schedulers'][name] = [{**more, **constants(state)} for state, more in zip(states, known, strict=False)]
    return found


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """One line for each setting that differs; hyper-parameters are not compared."""
    lines = [
        f'{key} ({meaning}) {_text(old[key])} -> {_text(new[key])}' for key, meaning in MEANINGS.items() if old[key] != new[key]
    ]
    written = [_listed(settings['param_scheduler']) for settings in (old, new)]
    known = all(part and all('type' in scheduler for scheduler in part.values()) for part in written)
    if known:
        lines += _schedule_changes(*written)
    if known and lines:
        return lines  # the built schedulers differ for these reasons
    for name, schedulers in new['schedulers'].items():
        place = f'param_scheduler.{name}' if name else 'param_scheduler'
        built = [{f'{place}.{i}': s for i, s in enumerate(part)} for part in (old['schedulers'].get(name, []), schedulers)]
        lines += _schedule_changes(*built)
    return lines


def _described(scheduler: _ParamScheduler) -> dict[str, Any]:
    functions = {key: value.__name__ for key, value in vars(scheduler).items() if callable(value) and key != 'optimizer'}
    return {'type': type(scheduler).__name__, **constants(scheduler), **functions}


def _listed(written: Any, place: str = 'param_scheduler') -> dict[str, dict]:
    """The schedulers of a config by their place. MMEngine accepts one, a list, or a dict of either by optimizer name."""
    if isinstance(written, dict) and 'type' not in written and all(isinstance(part, dict | list) for part in written.values()):
        return {inner: one for name, part in written.items() for inner, one in _listed(part, f'{place}.{name}').items()}
    schedulers = [written] if isinstance(written, dict) else written or []
    return {f'{place}.{i}': _named(scheduler) for i, scheduler in enumerate(schedulers)}


def _named(scheduler: dict) -> dict:
    """A scheduler's settings with the bare class name as `type`; a config may give a class, a scope or a module."""
    return {**scheduler, 'type': str(scheduler['type']).rpartition('.')[2]} if 'type' in scheduler else scheduler


def _schedule_changes(old: dict[str, dict], new: dict[str, dict]) -> list[str]:
    types = [', '.join(str(scheduler.get('type')) for scheduler in part.values()) or 'none' for part in (old, new)]
    if types[0] != types[1] or old.keys() != new.keys():
        return [f'param_scheduler {types[0]} -> {types[1]}']
    lines = []
    for place, ours in new.items():
        pairs = {
            key: (_distinct(key, old[place].get(key)), _distinct(key, ours.get(key))) for key in sorted({*old[place], *ours})
        }
        changes = [f'{key} {_text(before)} -> {_text(after)}' for key, (before, after) in pairs.items() if before != after]
        if changes:
            lines.append(f'{place} ({ours["type"]}): {", ".join(changes)}')
    return lines


def _distinct(key: str, value: Any) -> Any:
    """A setting of a scheduler; a list with one value per parameter group is reduced to its distinct values."""
    return list(dict.fromkeys(value)) if key == 'min_values' and isinstance(value, list) else value


def _text(value: Any) -> str:
    text = ', '.join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) < 80 else f'{text[:77]}...'
