"""Operations that a training step launches in eager mode, counted on a CPU: they depend on the depth, not on the width."""

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

#: They make or name memory and compute nothing.
_FREE = ('aten::empty', 'aten::new_empty', 'aten::empty_like', 'aten::empty_strided', 'aten::new_empty_strided',
         'aten::detach', 'aten::lift_fresh', 'aten::_unsafe_view', 'aten::is_same_size')  # fmt: skip


class OperationCounter(TorchDispatchMode):
    """Counts operations that launch work, in the block and in a backward pass in it; views are none.

    Attributes:
        names: of each operation that ran, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name
        if name not in _FREE and not _is_view(func):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def _is_view(func: Any) -> bool:
    aliases = [value.alias_info for value in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def count_operations(function: Callable[[], Any]) -> int:
    with OperationCounter() as counter:
        function()
    return len(counter.names)


def training_operations(model: Any, batch: dict[str, Any], low: bool) -> dict[str, int]:
    """Operations of a training step of a generator on a CPU, without the optimizer and the averaged weights, by part.

    Args:
        batch: as a loader over a latent cache gives it.
        low: under bfloat16 autocast.

    Returns:
        'latents' (drawn from the moments), 'noise' (noise, times, dropped labels, noisy latents), 'forward' (network and
        loss) and 'backward'.
    """
    marks = []
    with torch.autocast('cpu', torch.bfloat16, enabled=low), OperationCounter() as counter:
        handle = model.denoiser.register_forward_pre_hook(lambda *_: marks.append(len(counter.names)))
        data = model.data_preprocessor(batch, training=True)
        marks.append(len(counter.names))
        loss = model(**data, mode='loss')['loss']
    handle.remove()
    latents, noise, forward = marks[0], marks[1] - marks[0], len(counter.names) - marks[1]
    return dict(latents=latents, noise=noise, forward=forward, backward=count_operations(loss.backward))
