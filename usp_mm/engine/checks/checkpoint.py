"""Check that a checkpoint fits the config's model."""

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.fileio.strict_loading import ITS_CONFIG, find_misfit, misfit_error
from usp_mm.registry import HOOKS

from ..runner_parts import resuming, unwrapped


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Refuse a checkpoint of another model, which MMEngine would load partly or not at all without an error.

    Testing and `--resume` need every key and shape to match (an encoder's position table may be resized). Training from
    `load_from` may leave out parts of the model, which are logged, but not all of it.

    Raises:
        ValueError: The checkpoint does not fit; the message names keys that are missing, unexpected or of another shape.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        ours, theirs = unwrapped(runner).state_dict(), checkpoint.get('state_dict', checkpoint)
        found = find_misfit(ours, theirs, resized=('backbone.pos_embed',))
        if not found:
            if resuming(runner) and 'epoch' not in checkpoint.get('meta', {}):
                raise ValueError('the checkpoint holds weights alone: a run starts from it with load_from, but cannot resume')
            return
        in_part = isinstance(runner._train_loop, BaseLoop) and not resuming(runner)
        if not in_part or len(found.missing) + len(found.reshaped) == len(ours):
            fix = ITS_CONFIG
            if len(found.missing) == len(ours):
                fix += ', or convert it if it is of another project (usp convert)'
            if found.missing and not found.without(('denoiser_ema.',), ()):
                fix = "it holds no averaged weights: --cfg-options model.ema=None model.sample_model='model' samples without"
            raise misfit_error('the checkpoint', 'the config', found, fix)
        runner.logger.warning(f'the checkpoint fits the model in part: {found}')
