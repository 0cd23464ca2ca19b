"""Share an optimizer's state among the processes of a run (ZeRO stage 1, arXiv 1910.02054, section 5.1)."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import mmengine.optim  # noqa: F401  (registers MMEngine's ZeroRedundancyOptimizer, which this module replaces)
import torch
from mmengine.dist import is_distributed
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.optim import Optimizer

from usp_mm.presets import nearest
from usp_mm.registry import OPTIMIZERS

from .lars import MAELARS

#: Name in configs, MMEngine's own.
NAME = 'ZeroRedundancyOptimizer'
#: Optimizers of torch that need every parameter at once, or sparse gradients.
_NOT_BY_PARAMETER = ('LBFGS', 'SparseAdam')


class ShardedOptimizer(ZeroRedundancyOptimizer):
    """torch's ZeroRedundancyOptimizer, whose saved state is that of the optimizer inside.

    Each parameter belongs to one process, which alone keeps its state, updates it, and sends it to the others after a step.
    `state` has the parameters of this process; `state_dict` has all of them, in the first process within `gathered`.
    `load_state_dict` takes such a state or one of the plain optimizer, from any number of processes.
    """

    def __init__(self, params: Iterable, optimizer_class: type[Optimizer], **kwargs: Any) -> None:
        super().__init__(params, optimizer_class, **kwargs)
        self.state, self.defaults = self.optim.state, self.optim.defaults

    def reshard(self) -> None:
        """Share the parameters anew after `param_groups` was changed, before the first step."""
        assert not self.optim.state, 'reshard comes before the first step'
        base: Any = super()  # torch's stubs have public methods alone
        base._clear_cache()
        base._init_local_optimizer()
        base._build_param_buckets()
        self.state = self.optim.state

    def release(self) -> None:
        """Free the gathered copy of the other processes' state."""
        self._all_state_dicts: list[dict[str, Any]] = []

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load this process's part of the state of all parameters."""
        base: Any = super()
        params = chain.from_iterable(group['params'] for group in self.param_groups)
        saved = chain.from_iterable(group['params'] for group in state_dict['param_groups'])
        keys = dict(zip(params, saved, strict=True))
        groups: list[dict[str, Any]] = []
        state: dict[int, Any] = {}
        for group, ours in zip(state_dict['param_groups'], base._partition_parameters()[self.rank], strict=True):
            first = sum(len(one['params']) for one in groups)
            groups.append({**group, 'params': list(range(first, first + len(ours['params'])))})
            found = ((place, keys[param]) for place, param in enumerate(ours['params'], first))
            state.update({place: state_dict['state'][key] for place, key in found if key in state_dict['state']})
        self.optim.load_state_dict(dict(state=state, param_groups=groups))
        base._sync_param_groups(self.optim.param_groups, self.param_groups)
        self.state = self.optim.state


def sharded_class(name: str) -> type[Optimizer]:
    """The optimizer class to share that `optimizer_type` names: one of torch's, or MAELARS.

    Raises:
        ValueError: There is no such class, or its step needs all parameters in one process.
    """
    known = {key: cls for key, cls in vars(torch.optim).items() if isinstance(cls, type) and issubclass(cls, Optimizer)}
    known = {key: cls for key, cls in known.items() if cls is not Optimizer and key not in _NOT_BY_PARAMETER}
    known['MAELARS'] = MAELARS
    if name not in known:
        raise ValueError(
            f"optimizer_type='{name}' of {NAME}: expected an optimizer that treats each parameter alone, one of "
            f'{", ".join(sorted(known))}{nearest(name, known)}'
        )
    return known[name]


@OPTIMIZERS.register_module(name=NAME, force=True)
def zero_redundancy_optimizer(
    params: Iterable,
    optimizer_type: str,
    parameters_as_bucket_view: bool = False,
    **kwargs: Any,
) -> Optimizer:
    """Make an optimizer that shares its state among the processes; the plain one if there is only one process.

    In place of MMEngine's class of the same name, which hangs at a checkpoint: it gathers the state in `state_dict`, which the
    Runner calls in the first process alone.

    Args:
        params: Parameters or parameter groups, all of one dtype.
        optimizer_type: Name of an optimizer of torch that treats each parameter alone, or MAELARS.
        parameters_as_bucket_view: See torch's ZeroRedundancyOptimizer.
        **kwargs: Arguments of the optimizer.

    Raises:
        ValueError: `optimizer_type` is not such an optimizer.
    """
    cls = sharded_class(optimizer_type)
    if not is_distributed():
        return cls(params, **kwargs)
    return ShardedOptimizer(params, cls, parameters_as_bucket_view=parameters_as_bucket_view, **kwargs)


def sharded(optimizers: Iterable[Optimizer]) -> list[ShardedOptimizer]:
    """Those of the optimizers that share their state.

    Raises:
        ValueError: One is of a class that cannot save it with a Runner.
    """
    found = list(optimizers)
    for optimizer in found:
        if isinstance(optimizer, ZeroRedundancyOptimizer) and not isinstance(optimizer, ShardedOptimizer):
            kind = f'{type(optimizer).__module__}.{type(optimizer).__name__}'
            raise ValueError(f"the optimizer is {kind}, which hangs at a checkpoint: give its type as the string '{NAME}'")
    return [optimizer for optimizer in found if isinstance(optimizer, ShardedOptimizer)]


@contextmanager
def gathered(optimizers: Iterable[Optimizer]) -> Iterator[None]:
    """Have the whole state of shared optimizers in the first process during the block; all processes enter it together."""
    found = sharded(optimizers)
    for optimizer in found:
        optimizer.consolidate_state_dict()
    try:
        yield
    finally:
        for optimizer in found:
            optimizer.release()


def inner_class(optimizer: Optimizer) -> str:
    """Name of the class that updates the parameters."""
    return type(optimizer.optim if isinstance(optimizer, ShardedOptimizer) else optimizer).__name__
