"""TF32 on a GPU in training, validation and tests, as in the official scripts of DiT, SiT and USP's generators."""

from contextlib import ExitStack

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.functional.precision import tf32
from usp_mm.registry import HOOKS

from ..runner_parts import unwrapped


@HOOKS.register_module()
class TF32Hook(Hook):
    """On a GPU, allow TF32 for float32 matrix products and convolutions if `model.tf32` is true, and forbid it if false.

    By default, torch allows it for convolutions and not for products, which is how the official pretraining and classification
    scripts run. A model without `tf32` leaves the process's setting unchanged. The setting holds for forward and backward pass
    and is restored at the end. Nothing changes on a CPU.
    """

    def __init__(self) -> None:
        self._blocks: list[ExitStack] = []  # a stack, because a validation runs within training

    def _enter(self, runner: Runner) -> None:
        block, allowed = ExitStack(), getattr(unwrapped(runner), 'tf32', None)
        if allowed is not None and torch.cuda.is_available():
            block.enter_context(tf32(allowed))
        self._blocks.append(block)

    def _leave(self) -> None:
        self._blocks.pop().close()

    def before_train(self, runner: Runner) -> None:
        self._enter(runner)

    def after_train(self, runner: Runner) -> None:
        self._leave()

    def before_val(self, runner: Runner) -> None:
        self._enter(runner)

    def after_val(self, runner: Runner) -> None:
        self._leave()

    def before_test(self, runner: Runner) -> None:
        self._enter(runner)

    def after_test(self, runner: Runner) -> None:
        self._leave()
