"""GeneratorEMAHook: update a generator's averaged weights (EMA) after optimizer steps."""

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from usp_mm.registry import HOOKS

from ..runner_parts import resuming, unwrapped


@HOOKS.register_module()
class GeneratorEMAHook(Hook):
    """Update the averaged weights of LatentDiffusionGenerator after each optimizer step.

    Iterations that only accumulate gradients do not count, nor do steps that loss scaling skips. MMEngine's EMAHook keeps its
    average outside the model, where sampling, `load_from` and weight transfer cannot reach it.

    Training that starts from a `load_from` without averaged weights initialises the average with the weights; upstream leaves
    it random.
    """

    priority = 'HIGH'  # before CheckpointMatchHook

    def __init__(self) -> None:
        self._handle: RemovableHandle | None = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not isinstance(runner._train_loop, BaseLoop) or resuming(runner):
            return
        weights = checkpoint.get('state_dict', checkpoint)
        current = {name.removeprefix('denoiser.'): value for name, value in weights.items() if name.startswith('denoiser.')}
        if current and not any(name.startswith('denoiser_ema.') for name in weights):
            weights.update({f'denoiser_ema.module.{name}': value for name, value in current.items()})
            weights['denoiser_ema.steps'] = torch.tensor(0)
            runner.logger.info('the checkpoint has no averaged weights: the average starts at its weights')

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner)

        def update(optimizer: Optimizer, *_: Any) -> None:
            skipped = getattr(optimizer, 'found_inf', None)  # set by fused optimizers, whose `step` is called even then
            if skipped is None or not skipped.any():
                model.update_ema()

        self._handle = runner.optim_wrapper.optimizer.register_step_post_hook(update)

    def after_train(self, runner: Runner) -> None:
        if self._handle is not None:
            self._handle.remove()
