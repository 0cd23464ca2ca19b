"""The average moves once a real step of the optimizer, and `load_from` starts it."""

from types import SimpleNamespace

import torch
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import BaseLoop

from usp_mm.engine import GeneratorEMAHook


class Loop(BaseLoop):
    def __init__(self):
        pass

    def run(self):
        raise NotImplementedError


class Model(torch.nn.Linear):
    updates = 0

    def update_ema(self):
        self.updates += 1


def runner_of(accumulative_counts=1, training=True, resume=False):
    model = Model(2, 1)
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1), accumulative_counts=accumulative_counts)
    loop = Loop() if training else None
    return SimpleNamespace(
        model=model, optim_wrapper=wrapper, _train_loop=loop, _resume=resume, logger=MMLogger.get_current_instance()
    )


def train(runner, iterations):
    runner.optim_wrapper.initialize_count_status(runner.model, 0, iterations)
    for _ in range(iterations):
        runner.optim_wrapper.update_params(runner.model(torch.ones(1, 2)).sum())


def test_updates_follow_the_optimizers_steps():
    hook, runner = GeneratorEMAHook(), runner_of(accumulative_counts=3)
    hook.before_train(runner)
    train(runner, 7)
    assert runner.model.updates == 3  # after 3, 6, and the last
    hook.after_train(runner)
    train(runner, 6)
    assert runner.model.updates == 3


def test_a_step_that_loss_scaling_skips_does_not_count():
    for fused in (False, True):
        hook, runner = GeneratorEMAHook(), runner_of()
        optimizer = torch.optim.AdamW(runner.model.parameters(), fused=fused)
        runner.optim_wrapper.optimizer = optimizer
        hook.before_train(runner)
        scaler = torch.amp.GradScaler('cpu')
        for factor in (1.0, float('inf'), 1.0):
            scaler.scale(runner.model(torch.ones(1, 2)).sum() * factor).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert runner.model.updates == 2


def test_load_from_without_an_average():
    def load(**kwargs):
        weights = {'denoiser.a.weight': torch.ones(2)}
        GeneratorEMAHook().after_load_checkpoint(runner_of(**kwargs), dict(state_dict=weights))
        return weights

    found = load()
    assert set(found) == {'denoiser.a.weight', 'denoiser_ema.module.a.weight', 'denoiser_ema.steps'}
    assert torch.equal(found['denoiser_ema.module.a.weight'], torch.ones(2)) and found['denoiser_ema.steps'] == 0
    for kwargs in (dict(training=False), dict(resume=True)):  # those are refused instead
        assert set(load(**kwargs)) == {'denoiser.a.weight'}
