"""FiniteHook: end a training whose numbers are NaN or infinite, before it overwrites an earlier checkpoint."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed
from mmengine.hooks import CheckpointHook, EMAHook, Hook, LoggerHook
from mmengine.runner import Runner
from torch import Tensor

from usp_mm.fileio.weights import first_not_finite
from usp_mm.registry import HOOKS

from ..records.runtime_info import saves_now
from ..runner_parts import resuming, unwrapped, wrappers

#: Losses that are kept at most, where no logger reads them.
_KEPT = 1000


@HOOKS.register_module()
class FiniteHook(Hook):
    """End a training, on all processes together, when loss, weights, averages or optimizer state become NaN or infinite.

    The loss of each iteration is kept on the device, which costs one copy of a number and no synchronisation. The losses are
    read where LoggerHook logs, or after 1000 iterations. Losses and all weights are checked before a validation, before a
    checkpoint, at the end, and before each later hook that works at an `interval` of iterations, such as a picture of samples.

    With loss scaling (`AmpOptimWrapper`), a step with infinite gradients is skipped and leaves the weights unchanged. A loss
    that is not finite is then only logged, unless it occurs `patience` times in a row.

    Args:
        patience: Consecutive iterations with a non-finite loss that end a training with loss scaling.

    Raises:
        ValueError: A number is not finite; the message says which and since when, names the last checkpoint, and suggests what
            to try.
    """

    priority = 85  # after LoggerHook, which shows the loss, and EMAHook; before pictures and CheckpointHook

    def __init__(self, patience: int = 100) -> None:
        if patience < 1:
            raise ValueError(f'patience={patience} must be 1 or more')
        self.patience, self._training = patience, False

    def before_train(self, runner: Runner) -> None:
        self._training, self._losses = True, list[Tensor]()
        self._read = runner.iter  # number of iterations whose losses were checked
        self._row = 0  # consecutive non-finite losses at their end
        self._begun, self._checked = 0, -1
        self._loggers = [hook for hook in runner.hooks if isinstance(hook, LoggerHook)]
        self._savers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        self._later = [hook for hook in _following(runner.hooks, self) if not isinstance(hook, CheckpointHook)]

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self._begun += 1

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        if (loss := _loss(outputs or {})) is not None:
            self._losses.append(loss)
        saves = saves_now(self, self._savers, runner)
        if saves or any(self.every_n_inner_iters(batch_idx, hook.interval) for hook in self._later):
            self._check(runner)
        elif len(self._losses) >= _KEPT or any(self.every_n_inner_iters(batch_idx, hook.interval) for hook in self._loggers):
            self._check_losses(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check(runner)

    def before_val(self, runner: Runner) -> None:
        self._check(runner)

    def after_train(self, runner: Runner) -> None:
        self._check(runner)
        self._training = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check once more, whichever hook saves; in a distributed run, only the first process comes here."""
        if self._training and self._checked != self._begun and (found := first_not_finite(_tensors(runner))):
            self._refuse(runner, found)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the optimizer state of a resumed run; the weights were checked when the file was read."""
        if resuming(runner) and (found := first_not_finite(dict(_flat(checkpoint.get('optimizer'), 'optimizer')))):
            raise ValueError(
                f'the checkpoint cannot be resumed, {found} is NaN or infinite: resume from an earlier one, or start from its '
                'weights alone with load_from'
            )

    # ------------------------------------------------------------------ looking

    def _check_losses(self, runner: Runner) -> None:
        if not self._losses:
            return
        finite = torch.stack(self._losses).isfinite().int()
        if is_distributed():
            all_reduce(finite, 'min')
        seen, before = finite.tolist(), self._read
        self._losses.clear()
        self._read += len(seen)
        if all(seen):
            self._row = 0
            return
        if not _scales_loss(runner):
            self._refuse(runner, f'the loss of iteration {before + seen.index(0) + 1}')
        trailing = seen[::-1].index(1) if any(seen) else len(seen) + self._row
        self._row = trailing
        if trailing >= self.patience:
            self._refuse(runner, f'the loss of each of the {trailing} iterations up to {self._read}')
        runner.logger.warning(
            f'{seen.count(0)} of the losses of iterations {before + 1} to {self._read} are NaN or infinite: loss scaling skips '
            'such steps'
        )

    def _check(self, runner: Runner) -> None:
        """Check the losses and everything that a checkpoint holds."""
        if not self._training or self._checked == self._begun:
            return
        self._check_losses(runner)
        found = first_not_finite(_tensors(runner))
        if is_distributed():
            anywhere = torch.tensor(int(found is not None), device=next(unwrapped(runner).parameters()).device)
            all_reduce(anywhere, 'max')
            found = found or ('a tensor of another process' if int(anywhere) else None)
        if found:
            self._refuse(runner, found)
        self._checked = self._begun

    def _refuse(self, runner: Runner, what: str) -> None:
        self._training = False
        last = runner.message_hub.runtime_info.get('last_ckpt')
        rates = [lr for wrapper in wrappers(runner).values() for lr in next(iter(wrapper.get_lr().values()))]
        saved = f"the last checkpoint is '{last}'" if last else 'no checkpoint was saved yet'
        raise ValueError(
            f'{what} is NaN or infinite: the training ends and saves nothing more ({saved}); try a lower learning rate than '
            f'{max(rates):.3g}, --cfg-options optim_wrapper.clip_grad.max_norm=1.0, or float32 (no --amp), and look for broken '
            'images or latents'
        )


def _loss(outputs: Mapping[str, Any]) -> Tensor | None:
    """A copy of the minimised loss, summed as MMEngine does; None if the model's train_step returns no loss."""
    losses = [outputs['loss']] if 'loss' in outputs else [x for name, x in outputs.items() if 'loss' in name]
    tensors = [x.detach().float() for x in losses if isinstance(x, Tensor) and x.numel() == 1]
    return torch.stack([x.reshape(()) for x in tensors]).sum() if tensors else None


def _scales_loss(runner: Runner) -> bool:
    scalers = [getattr(wrapper, 'loss_scaler', None) for wrapper in wrappers(runner).values()]
    return any(scaler is not None and scaler.is_enabled() for scaler in scalers)


def _following(hooks: list[Hook], hook: Hook) -> list[Any]:
    """The hooks after this one that act every `interval` iterations."""
    after = hooks[hooks.index(hook) + 1 :] if hook in hooks else []
    return [
        one
        for one in after
        if type(one).after_train_iter is not Hook.after_train_iter and isinstance(getattr(one, 'interval', None), int)
    ]


def _tensors(runner: Runner) -> dict[str, Tensor]:
    """The weights, averages and optimizer state by name, not copied."""
    model = unwrapped(runner)
    found = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = {parameter: name for name, parameter in model.named_parameters()}
    for hook in runner.hooks:
        if isinstance(hook, EMAHook):
            found |= {f'the average of {name}': x for name, x in hook.ema_model.named_parameters()}
    for wrapper in wrappers(runner).values():
        for parameter, state in wrapper.optimizer.state.items():
            found |= dict(_flat(state, f"the optimizer's state of {names.get(parameter, 'a parameter')}"))
    return found


def _flat(node: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the name of every tensor in nested dicts and lists, and the tensor."""
    if isinstance(node, Tensor):
        yield path, node
    elif isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _flat(value, f'{path}.{i}')
