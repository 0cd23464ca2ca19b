"""Patches of torch and torchvision."""

import argparse
import os
import sys
from collections.abc import Callable
from pickle import UnpicklingError
from types import FunctionType, ModuleType
from typing import Any

import wrapt

from usp_mm.runtime.machine_errors import explain_machine

#: The numpy dtypes of arrays and scalars that a checkpoint may hold.
NUMPY_DTYPES = ('bool', 'int32', 'int64', 'float32', 'float64')


def torchvision_schemas() -> None:
    """Declare torchvision's `nms` and `qnms` operators if its C library has not loaded.

    Reason: a CPU build of torch with the registry's CUDA build of torchvision fails at `import torchvision`
    ("operator torchvision::nms does not exist"), for two operators that nothing here calls.
    Delete when: torchvision registers no fake implementation of an operator that it failed to load.
    """
    wrapt.register_post_import_hook(_declare_operators, 'torchvision.extension')


def _declare_operators(module: ModuleType) -> None:
    import torch

    for schema in (
        'nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
        'qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    ):
        name, signature = schema.split('(', 1)
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f'torchvision::{name}', f'({signature}')


def checkpoint_globals() -> None:
    """Allow `torch.load(weights_only=True)` to read the types in checkpoints of MMEngine and of the official code.

    Reason: since torch 2.6 that is the default. MMEngine's checkpoints hold `HistoryBuffer` (with its methods), numpy arrays
    and numpy scalars, and official ones hold the run's `argparse.Namespace`. numpy's private names are allowed under both of
    the module paths that numpy 1 and numpy 2 write.
    Delete when: MMEngine declares its own.
    """
    wrapt.register_post_import_hook(_add_safe_globals, 'torch')


def _add_safe_globals(module: Any) -> None:
    import numpy as np
    from mmengine.logging import HistoryBuffer

    reconstruct: Any = np.zeros(0).__reduce__()[0]
    scalar: Any = np.float64(0).__reduce__()[0]
    private = [(f, f'numpy.{core}.multiarray.{f.__name__}') for f in (reconstruct, scalar) for core in ('core', '_core')]
    dtypes = [type(np.dtype(name)) for name in NUMPY_DTYPES]
    guarded = [(history_buffer_method, 'builtins.getattr')]
    known = [HistoryBuffer, argparse.Namespace, np.ndarray, np.dtype, *dtypes, *private, *guarded]
    module.serialization.add_safe_globals(known)


def history_buffer_method(owner: Any, name: str) -> FunctionType:
    """Replacement for `builtins.getattr` in a checkpoint, which returns only HistoryBuffer's own public methods.

    Raises:
        pickle.UnpicklingError: If anything else is asked for.
    """
    from mmengine.logging import HistoryBuffer

    method = vars(HistoryBuffer).get(name) if owner is HistoryBuffer and not name.startswith('_') else None
    if not isinstance(method, FunctionType):
        raise UnpicklingError(f'attribute {name!r} of {owner!r}: only methods of HistoryBuffer are allowed in a checkpoint')
    return method


def index_of_subset() -> None:
    """Let torch's `Subset` pass on the epoch and the seed of an `EpochIndex`.

    Reason: `Subset` looks the inner index up in a list of plain numbers, which silently drops the epoch and the seed.
    Delete when: torch's `Subset` keeps the attributes of an index.
    """
    wrapt.register_post_import_hook(_carry_through_subset, 'torch.utils.data.dataset')


def _carry_through_subset(module: ModuleType) -> None:
    def __getitem__(self: Any, idx: Any) -> Any:
        if isinstance(idx, list):
            return self.dataset[[carried(one, self.indices[one]) for one in idx]]
        return self.dataset[carried(idx, self.indices[idx])]

    def __getitems__(self: Any, indices: list) -> list:
        inner = [carried(one, self.indices[one]) for one in indices]
        together = getattr(self.dataset, '__getitems__', None)
        return together(inner) if callable(together) else [self.dataset[one] for one in inner]

    module.Subset.__getitem__, module.Subset.__getitems__ = __getitem__, __getitems__


def carried(index: Any, inner: Any) -> Any:
    """`inner` with the epoch and seed of `index`, if that is an `EpochIndex` (which can't be imported here)."""
    return index.at(inner) if hasattr(index, 'at') else inner


def lost_batches() -> None:
    """Let a process that loads data end with one line when it cannot send a batch, for lack of shared memory or open files.

    Reason: it prints a traceback and goes on without the batch, for which the main process then waits for ever.
    Delete when: torch's workers pass an error of their queue's thread on to the main process.
    """
    wrapt.register_post_import_hook(_end_without_batch, 'torch.utils.data._utils.worker')


def _end_without_batch(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper('multiprocessing.queues', 'Queue._on_queue_feeder_error')
    def on_error(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        if module.get_worker_info() is None:
            wrapped(*args, **kwargs)
            return
        sys.stderr.write(f'error: a batch cannot be sent: {explain_machine(args[0]) or args[0]}\n')
        sys.stderr.flush()
        os._exit(1)


def addresses_of_a_restart() -> None:
    """Give processes of one node that a launcher starts again (`--max-restarts`) a part of its store to themselves.

    Reason: torchrun hosts one store for all starts, and in torch 2.13 nothing tells them apart in it. The processes then find
    the addresses of those that have ended, and wait for them, or end with "Gloo connectFullMesh failed". Several nodes are left
    to torch, since each launcher counts its own starts (pytorch/pytorch issue 135712).
    Delete when: `torch.distributed.rendezvous` sets the starts apart itself.
    """
    wrapt.register_post_import_hook(_set_restarts_apart, 'torch.distributed.rendezvous')


def _set_restarts_apart(module: ModuleType) -> None:
    if not hasattr(module, '_create_c10d_store'):  # a torch without torch.distributed
        return

    @wrapt.patch_function_wrapper(module, '_create_c10d_store')
    def create(wrapped: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        from torch.distributed import PrefixStore

        store, start = wrapped(*args, **kwargs), os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
        shared = os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True' and os.environ.get('GROUP_WORLD_SIZE', '1') == '1'
        return PrefixStore(f'start_{start}', store) if shared and start != '0' else store
