"""The learning rate for the batch that a run really has (`--auto-scale-lr`), or a line that says it is for another batch."""

import os
from collections.abc import Iterable
from typing import Any

from mmengine.config import Config

from ..checks.config.schedule import schedulers_in

#: Environment variables in which each launcher passes the number of processes.
_PROCESSES = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}
#: Where a config says the batch that its rate is for, and that of a process.
_BATCHES = (('auto_scale_lr', 'base_batch_size'), ('train_dataloader', 'batch_size'))


def scale_learning_rates(cfg: Config) -> str | None:
    """Scale the rates of `optim_wrapper` by batch · accumulation · processes / base batch, if `auto_scale_lr.enable` is set.

    The config is changed to the scaled rates, with their batch size as `auto_scale_lr.base_batch_size` and `enable=False`, so
    it can be run again as it is, with or without scaling. MMEngine's own scaling leaves out the accumulation, and leaves the
    unscaled rate in the config.

    Returns:
        A line for the log, or None if there is nothing to scale.

    Raises:
        ValueError: `base_batch_size`, `train_dataloader.batch_size` or a learning rate is missing, a scheduler sets the rate
            itself, or the number of processes is unknown.
    """
    scale = cfg.get('auto_scale_lr')
    if not scale or not scale.get('enable'):
        return None
    base = scale.get('base_batch_size')
    if not base:
        raise ValueError('auto_scale_lr.base_batch_size is unset: give the batch that the learning rate is written for')
    _check_schedulers(cfg)
    processes, batch = number_of_processes(cfg.get('launcher', 'none')), cfg.train_dataloader.get('batch_size')
    if batch is None:
        raise ValueError('train_dataloader.batch_size is unset: auto_scale_lr needs it, also beside a batch_sampler')
    changes, wholes = [], set()
    for name, wrapper in _wrappers(cfg).items():
        if 'lr' not in wrapper.get('optimizer', {}):
            raise ValueError(f'{name}.optimizer.lr is unset: auto_scale_lr has nothing to scale')
        accumulated = wrapper.get('accumulative_counts', 1)
        whole = batch * accumulated * processes
        before, wrapper.optimizer.lr = wrapper.optimizer.lr, wrapper.optimizer.lr * (whole / base)
        wholes.add(whole)
        changes.append(
            f'{name}.optimizer.lr {before:g} for a batch of {base:g} -> {wrapper.optimizer.lr:g} for {whole} '
            f'({batch} x {accumulated} accumulated x {processes} processes)'
        )
    if len(wholes) > 1:
        raise ValueError('auto_scale_lr needs the same accumulative_counts for all optimizers: scale their rates by hand')
    scale.enable, scale.base_batch_size = False, wholes.pop()
    return f'auto_scale_lr: {"; ".join(changes)}'


def other_batch(cfg: Config, processes: int, given: Iterable[str] = ()) -> str | None:
    """A line that warns if the batch of a run is not the one that its learning rate is for, and nothing scales the rate.

    Args:
        cfg: Config of the run, after `scale_learning_rates`.
        processes: Number of processes of the run.
        given: Keys that the user set; a rate among them is meant for this batch.

    Returns:
        None if the batch is `auto_scale_lr.base_batch_size`, or this, the batch or the rate is unset or was given.
    """
    base, batch = ((cfg.get(part) or {}).get(key) for part, key in _BATCHES)
    if not base or not batch or not isinstance(cfg.get('optim_wrapper'), dict):
        return None
    given = set(given)
    for name, wrapper in _wrappers(cfg).items():
        rate, accumulated = f'{name}.optimizer.lr', wrapper.get('accumulative_counts', 1)
        whole, lr = batch * accumulated * processes, wrapper.optimizer.get('lr')
        if whole == base or lr is None or given & {rate, f'{name}.optimizer', name}:
            continue
        counts, rest = divmod(base, batch * processes)
        reached = f'{name}.accumulative_counts={counts} for that batch, ' if counts and not rest else ''
        return (
            f'{rate}={lr:g} is for a batch of {base:g} (auto_scale_lr.base_batch_size), and this run has '
            f'{whole} ({batch} x {accumulated} accumulated x {processes} process{"es" * (processes > 1)}): set {reached}'
            f'--auto-scale-lr for the rate of this one, or auto_scale_lr.base_batch_size={whole} if {lr:g} is meant'
        )
    return None


def number_of_processes(launcher: str) -> int:
    """Number of processes of the run, from the launcher's environment variables.

    Raises:
        ValueError: The environment does not give the number.
    """
    if launcher == 'none':
        return 1
    variable = _PROCESSES[launcher]
    if not os.environ.get(variable, '').isdigit():
        raise ValueError(f'auto_scale_lr: --launcher {launcher} has not set {variable}, the number of processes')
    return int(os.environ[variable])


def _wrappers(cfg: Config) -> dict[str, Any]:
    """Configs of the optimizer wrappers by their place in the config; there may be one, or several by name."""
    wrapper = cfg.optim_wrapper
    if 'optimizer' in wrapper:
        return {'optim_wrapper': wrapper}
    return {f'optim_wrapper.{name}': part for name, part in wrapper.items() if isinstance(part, dict) and 'optimizer' in part}


def _check_schedulers(cfg: Config) -> None:
    for place, scheduler in schedulers_in('param_scheduler', cfg.get('param_scheduler')):
        kind = scheduler.get('type')
        kind = kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]  # without its scope or module
        if kind.startswith('OneCycle') and 'Momentum' not in kind:
            raise ValueError(
                f'auto_scale_lr: {place} ({kind}) sets the rate by its own eta_max: scale that by hand, and leave scaling off'
            )
