"""TF32 on a GPU while a model trains, validates and is tested, as in the official scripts of DiT, SiT and USP's generators."""

from contextlib import ExitStack

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.functional.precision import tf32
from usp_mm.registry import HOOKS

from .hooks import unwrapped


@HOOKS.register_module()
class TF32Hook(Hook):
    """On a GPU, let float32 products and convolutions round to TF32 if `model.tf32` says so; forbid it if not.

    torch by itself lets convolutions do so and products not, which is how the official pretraining and classification scripts
    run. A model without `tf32` leaves the process's setting as it is. Forward and backward pass need that setting, which is put
    back at the end. A CPU computes as ever.
    """

    def __init__(self) -> None:
        self._blocks: list[ExitStack] = []  # a validation is within a training

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
