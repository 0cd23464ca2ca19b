"""The learning rate for the batch that a run really has (`--auto-scale-lr`)."""

import os
from typing import Any

from mmengine.config import Config

from .checks.config.schedule import schedulers_in

#: Where each launcher tells its processes how many they are.
_PROCESSES = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS', 'mpi': 'OMPI_COMM_WORLD_SIZE'}


def scale_learning_rates(cfg: Config) -> str | None:
    """Scale the rates of `optim_wrapper` by batch · accumulation · processes / base batch, if `auto_scale_lr.enable` is set.

    The config then says what was done: the scaled rates, `auto_scale_lr.base_batch_size` of the batch that they are for, and
    `enable=False`. So it can be run again as it is, with or without scaling. MMEngine's own scaling leaves out the
    accumulation, and leaves the unscaled rate in the config.

    Returns:
        A line for the log, or None if nothing is to be scaled.

    Raises:
        ValueError: no `base_batch_size`, no `train_dataloader.batch_size`, no rate, a schedule that sets the rate itself, or an
            unknown number of processes.
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
    told, wholes = [], set()
    for name, wrapper in _wrappers(cfg).items():
        if 'lr' not in wrapper.get('optimizer', {}):
            raise ValueError(f'{name}.optimizer.lr is unset: auto_scale_lr has nothing to scale')
        accumulated = wrapper.get('accumulative_counts', 1)
        whole = batch * accumulated * processes
        before, wrapper.optimizer.lr = wrapper.optimizer.lr, wrapper.optimizer.lr * (whole / base)
        wholes.add(whole)
        told.append(
            f'{name}.optimizer.lr {before:g} for a batch of {base:g} -> {wrapper.optimizer.lr:g} for {whole} '
            f'({batch} x {accumulated} accumulated x {processes} processes)'
        )
    if len(wholes) > 1:
        raise ValueError('auto_scale_lr needs the same accumulative_counts for all optimizers: scale their rates by hand')
    scale.enable, scale.base_batch_size = False, wholes.pop()
    return f'auto_scale_lr: {"; ".join(told)}'


def number_of_processes(launcher: str) -> int:
    """Processes of the run, as the launcher's environment tells.

    Raises:
        ValueError: it does not tell.
    """
    if launcher == 'none':
        return 1
    variable = _PROCESSES[launcher]
    if not os.environ.get(variable, '').isdigit():
        raise ValueError(f'auto_scale_lr: --launcher {launcher} has not set {variable}, the number of processes')
    return int(os.environ[variable])


def _wrappers(cfg: Config) -> dict[str, Any]:
    """The configs of the optimizer wrappers, by their place: one, or several under names."""
    wrapper = cfg.optim_wrapper
    if 'optimizer' in wrapper:
        return {'optim_wrapper': wrapper}
    return {f'optim_wrapper.{name}': part for name, part in wrapper.items() if isinstance(part, dict) and 'optimizer' in part}


def _check_schedulers(cfg: Config) -> None:
    for place, scheduler in schedulers_in('param_scheduler', cfg.get('param_scheduler')):
        kind = scheduler.get('type')
        kind = kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]  # behind a scope or a module
        if kind.startswith('OneCycle') and 'Momentum' not in kind:
            raise ValueError(
                f'auto_scale_lr: {place} ({kind}) sets the rate by its own eta_max: scale that by hand, and leave scaling off'
            )
