"""TF32 while a generator trains, as in the official scripts of DiT, SiT and USP."""

from contextlib import ExitStack

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.functional.precision import tf32
from usp_mm.registry import HOOKS

from .hooks import unwrapped


@HOOKS.register_module()
class TF32Hook(Hook):
    """On a GPU, let float32 products and convolutions of a training round to TF32 if `model.tf32` says so; forbid it if not.

    Forward and backward pass need the process's setting, which is put back at the end. A CPU computes as ever.
    """

    def before_train(self, runner: Runner) -> None:
        self._block = ExitStack()
        if torch.cuda.is_available():
            self._block.enter_context(tf32(unwrapped(runner).tf32))

    def after_train(self, runner: Runner) -> None:
        self._block.close()
