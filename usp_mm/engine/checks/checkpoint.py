"""A checkpoint of another model than the config's."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from torch import Tensor

from usp_mm.registry import HOOKS

from ..hooks import resuming, unwrapped


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Refuse a checkpoint of another model, which MMEngine would load in part or not at all and go on.

    Testing and `--resume` need every key and shape to match (an encoder's position table may be resized). Training from
    `load_from` may leave parts out, which are logged, but not everything.

    Raises:
        ValueError: names what is missing, unexpected or of another shape.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        ours, theirs = unwrapped(runner).state_dict(), checkpoint.get('state_dict', checkpoint)
        problems = {
            'missing': [name for name in ours if name not in theirs],
            'unexpected': [name for name in theirs if name not in ours],
            'of another shape': [
                f'{name} {_shape(theirs[name])} for {_shape(value)}'
                for name, value in ours.items()
                if name in theirs and name != 'backbone.pos_embed' and _shape(theirs[name]) != _shape(value)
            ],
        }
        found = '; '.join(f'{len(names)} {kind} ({", ".join(names[:3])}…)' for kind, names in problems.items() if names)
        if not found:
            if resuming(runner) and 'epoch' not in checkpoint.get('meta', {}):
                raise ValueError('the checkpoint holds weights alone: a run starts from it with load_from, but cannot resume')
            return
        in_part = isinstance(runner._train_loop, BaseLoop) and not resuming(runner)
        if not in_part or len(problems['missing']) + len(problems['of another shape']) == len(ours):
            fix = 'use the config it was trained with'
            if len(problems['missing']) == len(ours):
                fix += ', or convert it if it is of another project (tools/convert_checkpoint.py)'
            if all(name.startswith('denoiser_ema.') for name in problems['missing']) and not problems['of another shape']:
                fix = "it holds no averaged weights: --cfg-options model.ema=None model.sample_model='model' samples without"
            raise ValueError(f'the checkpoint is of another model than the config: {found}: {fix}')
        runner.logger.warning(f'the checkpoint fits the model in part: {found}')


def _shape(value: Any) -> tuple[int, ...] | str:
    """Of a tensor; a layer's extra state may be anything, and says its type."""
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
