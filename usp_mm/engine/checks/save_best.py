"""Check the score by which CheckpointHook chooses its best checkpoint."""

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.presets import nearest
from usp_mm.registry import HOOKS

from ..runner_parts import metrics_of


@HOOKS.register_module()
class SaveBestCheckHook(Hook):
    """Refuse a `save_best` of CheckpointHook that no validation metric provides, before training where this can be known.

    Metrics name their scores PREFIX/NAME. The names of a metric without a prefix are known only after the first validation; a
    `save_best` that is not among them then ends the run with a one-line error.

    Raises:
        ValueError: No metric provides the score; the message lists those that are available.
    """

    priority = 'HIGH'  # before CheckpointHook

    def before_train(self, runner: Runner) -> None:
        if not isinstance(runner._val_loop, BaseLoop):
            return
        metrics = metrics_of(runner._val_loop)
        prefixes = [metric.prefix for metric in metrics if getattr(metric, 'prefix', None) is not None]
        if not prefixes or len(prefixes) < len(metrics):
            return
        for name in _asked(runner):
            if not any(name.startswith(f'{prefix}/') for prefix in prefixes):
                raise ValueError(
                    f"CheckpointHook.save_best='{name}': the metrics of val_evaluator give "
                    f'{", ".join(f"{prefix}/…" for prefix in prefixes)}{nearest(name.split("/")[0], prefixes)}'
                )

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if not metrics or not isinstance(runner._train_loop, BaseLoop):
            return
        for name in _asked(runner):
            if name not in metrics:
                raise ValueError(
                    f"CheckpointHook.save_best='{name}': the validation gave {sorted(metrics)}{nearest(name, metrics)}"
                )


def _asked(runner: Runner) -> list[str]:
    """The scores that the CheckpointHooks are configured to watch."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return [name for hook in hooks for name in hook.save_best or () if name != 'auto']
