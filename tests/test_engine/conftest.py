"""Configs of all of MMEngine's schedulers, and a run to resume from."""

import pytest
from helpers.resumed_runs import EIGHT
from helpers.toy_runs import run
from mmengine.optim import scheduler as schedulers
from mmengine.optim.scheduler import param_scheduler

_KINDS = {
    'Constant': dict(factor=0.5, end=4),
    'CosineAnnealing': dict(T_max=8, eta_min=0.01),
    'CosineRestart': dict(periods=[3, 5], restart_weights=[1.0, 0.5], eta_min=0.01),
    'Exponential': dict(gamma=0.9),
    'Linear': dict(start_factor=0.1, end=6),
    'MultiStep': dict(milestones=[2, 4]),
    'OneCycle': dict(eta_max=0.4, total_steps=9),
    'Poly': dict(eta_min=0.01, power=0.9, end=9),
    'ReduceOnPlateau': dict(monitor='score'),
    'Step': dict(step_size=2),
}


@pytest.fixture(scope='session')
def all_schedulers():
    """One config of each scheduler that MMEngine has, over epochs."""
    found = []
    for kind, arguments in _KINDS.items():
        for name in (f'{kind}LR', f'{kind}Momentum', f'{kind}ParamScheduler'):
            if hasattr(schedulers, name) or hasattr(param_scheduler, name):
                named = dict(param_name='lr') if name.endswith('ParamScheduler') else {}
                found.append(dict(type=name, by_epoch=True, **arguments, **named))
    names = {name for name in dir(schedulers) if name.endswith(('LR', 'Momentum', 'ParamScheduler')) and name[0] != '_'}
    assert names <= {cfg['type'] for cfg in found}
    return found


@pytest.fixture(scope='session')
def first_run(tmp_path_factory):
    """Work folder of an uninterrupted run over 8 epochs of 10 iterations."""
    folder = tmp_path_factory.mktemp('first')
    run(folder, **EIGHT)
    return folder
