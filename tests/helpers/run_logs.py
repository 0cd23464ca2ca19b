"""Hand-made logs of training runs, as MMEngine and RunInfoHook write them."""

import json
from pathlib import Path

INFO = dict(
    config='sit.py', stage='generation', world_size=4, device='cuda', device_name='H200', batch_size=8,
    flops_per_sample=10**9, train_flops_per_sample=3 * 10**9, start_iter=0, iters_per_epoch=None, log_window=10,
)  # fmt: skip


def training(step: int, time: float = 0.5, data_time: float = 0.1, **values: float) -> dict:
    return dict(lr=1e-4, loss=1.0 / step, data_time=data_time, time=time, **values, iter=step, step=step)


def validation(step: int, **metrics: float) -> dict:
    return dict(**metrics, data_time=0.01, time=3.0, step=step)


def write_log(run: Path, records: list[dict], stamp: str = '20250101_000000', info: dict | None = INFO) -> Path:
    """One start of a run in its work folder `run`, which is returned."""
    folder = run / stamp
    (folder / 'vis_data').mkdir(parents=True)
    (folder / 'vis_data' / 'scalars.json').write_text(''.join(json.dumps(record) + '\n' for record in records))
    if info is not None:
        (folder / 'run_info.json').write_text(json.dumps(info))
    return run


def write_curve(run: Path, points: dict[int, float], metric: str = 'Feature/FD', **info: object) -> Path:
    """A run that logs every 100 steps, half a second each, and has `points` {step: value} of a metric."""
    records = []
    for step in range(100, max(points) + 1, 100):
        records.append(training(step))
        if step in points:
            records.append(validation(step, **{metric: points[step]}))
    return write_log(run, records, info={**INFO, **info})
