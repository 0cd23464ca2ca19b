"""Memory that a training takes on each process, from its config, without weights or data."""

import dataclasses
import heapq
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakIdKeyDictionary

from usp_mm.engine.optim.sharding import NAME
from usp_mm.engine.records.flops import call_of

from .complexity import build_meta

_FLOAT32 = 4
#: Optimizers with two moments a parameter.
_TWO_MOMENTS = ('Adam', 'AdamW')
#: Optimizer wrappers -> the precision of their forward pass.
_AUTOCAST = {'OptimWrapper': None, 'AutocastOptimWrapper': torch.bfloat16, 'AmpOptimWrapper': torch.bfloat16}


def training_memory(cfg: Config, processes: int = 1) -> dict[str, int]:
    """Bytes that one process of a training holds, of those that share an optimizer's state the one that holds most.

    The frozen VAE, the teacher of REPA, what operations use for a moment, and the allocator's and libraries' own memory are
    not counted.

    Args:
        cfg: Config of a pretraining or a generator with Adam or AdamW.
        processes: Number of processes.

    Returns:
        A dict with the keys 'weights', 'gradients', 'buckets' (copies of the gradients, unless `gradient_as_bucket_view`),
        'moments', 'average', 'activations' (what the backward pass needs for the batch of one process, see
        `kept_for_backward`) and 'total'.

    Raises:
        ValueError: The optimizer, its wrapper or the model is of another kind.
    """
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer, kind = wrapper.get('optimizer') or {}, wrapper.get('type', 'OptimWrapper')
    shared = optimizer.get('type') == NAME
    name = optimizer.get('optimizer_type') if shared else optimizer.get('type')
    if name not in _TWO_MOMENTS or kind not in _AUTOCAST:
        raise ValueError(
            f'cannot estimate the memory of {kind} with {name}: expected {", ".join(_AUTOCAST)} and {" or ".join(_TWO_MOMENTS)}'
        )
    model = build_meta(cfg)
    network = getattr(model, 'denoiser', model)
    sizes = [p.numel() for p in network.parameters() if p.requires_grad]
    share = largest_share(sizes, processes) if shared else sum(sizes)
    views = cfg.get('model_wrapper_cfg', {}).get('gradient_as_bucket_view', True)
    found = dict(
        weights=_FLOAT32 * sum(p.numel() for p in network.parameters()),
        gradients=_FLOAT32 * sum(sizes),
        buckets=0 if processes == 1 or views else _FLOAT32 * sum(sizes),
        moments=2 * _FLOAT32 * share,
        average=_FLOAT32 * sum(p.numel() for p in network.parameters()) if cfg.model.get('ema') else 0,
        activations=kept_for_backward(model, cfg.train_dataloader.batch_size, _AUTOCAST[kind]),
    )
    return {**found, 'total': sum(found.values())}


def largest_share(sizes: Iterable[int], processes: int) -> int:
    """Sum of the sizes that go to the fullest process if each, largest first, goes to the one that has least."""
    shares = [0] * processes
    for size in sorted(sizes, reverse=True):
        heapq.heapreplace(shares, shares[0] + size)
    return max(shares)


def kept_for_backward(model: nn.Module, batch: int, dtype: torch.dtype | None = None) -> int:
    """Bytes that the forward pass leaves for the backward pass, besides weights and inputs.

    The forward pass runs on tensors without data (torch's FakeTensorMode), and the storages that are alive after it are added
    up. Attention is torch's fused kernel, which keeps no table of tokens by tokens. The bytes of two small batches are
    extrapolated: what does not depend on the batch are copies of the weights in the lower precision.

    Args:
        model: Pretraining model or generator on the meta device.
        batch: Number of samples.
        dtype: Precision of autocast (torch's rules for a CPU); None for none.

    Raises:
        ValueError: The model is of another kind.
    """
    try:
        first, second = (_kept(model, count, dtype) for count in (2, 3))
    except TypeError as error:
        raise ValueError(
            f'cannot estimate the memory of a {type(model).__name__}: expected one of pretraining or generation'
        ) from error
    return first + (batch - 2) * (second - first)


def _kept(model: nn.Module, batch: int, dtype: torch.dtype | None) -> int:
    network, arguments, keywords = call_of(model, batch)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.compiler.set_stance('force_eager'):
        tensors = {
            name: _without_data(tensor).requires_grad_(tensor.requires_grad)
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
        }
        inputs, options = tree_map(_without_data, arguments), {key: _plain(value) for key, value in keywords.items()}
        known = [*tensors.values(), *inputs]
        with _Storages(known) as storages, torch.autocast('cpu', dtype=dtype, enabled=dtype is not None):
            out = functional_call(network, tensors, inputs, options)
            loss = sum(x.float().sum() for x in tree_leaves(out))
        kept = storages.bytes()
        del loss
    return kept


def _without_data(value: Any) -> Any:
    return torch.empty(value.shape, dtype=value.dtype, device='cpu') if isinstance(value, Tensor) else value


def _plain(value: Any) -> Any:
    """An argument with tensors on the CPU; `SampleKeys` holds tensors that no tree of torch's knows."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changed: Mapping[str, Any] = {
            field.name: _without_data(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **changed)
    return _without_data(value)


class _Storages(TorchDispatchMode):
    """Notes the storage of each result, as long as it is alive."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self._known = {id(tensor.untyped_storage()) for tensor in known}
        self._sizes = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and id(storage := tensor.untyped_storage()) not in self._known:
                self._sizes[storage] = storage.nbytes()
        return out

    def bytes(self) -> int:
        return sum(self._sizes.values())
