"""Cost of a training run (USP, arXiv 2503.06132, Table 5)."""

from collections.abc import Sequence
from typing import Any

from .run_log import RunLog

DAY = 86400


def run_cost(run: RunLog, until: int | None = None) -> dict[str, Any]:
    """Cost of a run's training, without validation and sampling.

    Args:
        run: Log of the run.
        until: Number of steps to include; None for all logged steps.

    Returns:
        'run', 'stage', 'config', 'device'; 'steps', 'samples', 'samples/s' (all processes together); 'hours' of wall time,
        'GPU-days' (processes times days); 'GFLOP/sample' and the total 'EFLOP', forward and backward, None if they were not
        counted.

    Raises:
        ValueError: run_info.json is missing, or the log has fewer steps than `until`.
    """
    info, last = run.info, int(run.steps[-1])
    if 'world_size' not in info:
        raise ValueError(f"'{run.folder}' has no run_info.json, which says how many processes ran: train with RunInfoHook")
    if until is not None and not 0 < until <= last:
        raise ValueError(f"'{run.folder}': the cost of {until} steps is asked for, the log has {last}")
    steps = until or last
    seconds, samples, processes = (float(run.at(name, steps)) for name in ('seconds', 'samples', 'process_seconds'))
    flops = info['train_flops_per_sample']
    return {
        'run': run.folder.name,
        'stage': info['stage'],
        'config': info['config'],
        'device': f'{info["world_size"]} × {info["device_name"]}',
        'steps': steps,
        'samples': round(samples),
        'samples/s': samples / seconds,
        'hours': seconds / 3600,
        'GFLOP/sample': None if flops is None else flops / 1e9,
        'EFLOP': None if flops is None else flops * samples / 1e18,
        'GPU-days': processes / DAY,
    }


def total_cost(costs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sums over several runs; 'EFLOP' is None if that of a run is None."""
    flops = [cost['EFLOP'] for cost in costs]
    sums = {key: sum(cost[key] for cost in costs) for key in ('steps', 'samples', 'hours', 'GPU-days')}
    return dict(run='total', **sums, EFLOP=None if None in flops else sum(flops))
