"""Count the floating-point operations of a training sample without computing anything.

The network runs on meta tensors, which have shapes and no data. Weights, buffers, gradients, memory and the random number
generators are not touched, and counting a large model takes no longer than counting a small one.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from usp_mm.models import USP, USPClassifier
from usp_mm.models.geometry import LatentGeometry
from usp_mm.models.random_keys import SampleKeys
from usp_mm.vaes import LatentCodec

#: A batch of one would not pass a BatchNorm in training.
BATCH = 2


def count_flops(model: nn.Module) -> dict[str, int]:
    """Operations for one sample; a multiplication and an addition count as two.

    The count covers matrix products and convolutions of what is trained: the pretraining algorithm (encoder on the visible
    tokens, and decoder), encoder and head of a classifier, encoder, neck and heads of a segmentor (for a crop), or the
    denoiser of a generator. A frozen VAE is not counted; the encoder of a VAE that is trained with the classifier is.

    Returns:
        'forward', and 'train' for forward and backward pass, without the optimizer and without what activation checkpointing
        computes twice. 'train' is less than three times 'forward' where a part is frozen, and where a generator has a route,
        which 'forward' leaves out.

    Raises:
        TypeError: The model is of another kind.
    """
    network, arguments, keywords = call_of(model)
    tensors = {
        name: torch.empty_like(tensor, device='meta').requires_grad_(tensor.requires_grad)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]
    }
    with _on_meta(network), _counting() as count, torch.enable_grad():
        out = functional_call(network, tensors, arguments, keywords)
        forward = count()
        outputs = out.values() if isinstance(out, dict) else out if isinstance(out, tuple) else (out,)
        loss = sum(x.float().sum() for x in outputs)
        trained = [tensor for tensor in tensors.values() if tensor.requires_grad]
        torch.autograd.grad(loss, trained, allow_unused=True)
        train = count()
        if 'keep' in keywords:  # with a route, which only training has
            functional_call(network, tensors, arguments)
            forward = count() - train
    return dict(forward=forward // BATCH, train=train // BATCH)


def count_codec(codec: LatentCodec, img_size: int) -> dict[str, int]:
    """Operations of a VAE on the meta device (`usp_mm.vaes.shapes`) for one image: 'encode', 'encode_train' and 'decode'.

    'encode_train' is the forward and backward pass of the encoder, for runs that train it.
    """
    images = torch.empty(1, 3, img_size, img_size, device='meta')
    latents = torch.empty(1, codec.channels, img_size // codec.stride, img_size // codec.stride, device='meta')
    assert codec.network is not None
    parameters = list(codec.network.parameters())
    with _counting() as count:
        with torch.no_grad():
            codec.network_decode(latents)
            decode = count()
        for parameter in parameters:
            parameter.requires_grad_(True)
        moments = codec.network_encode(images)
        encode = count() - decode
        torch.autograd.grad(moments.sum(), parameters, allow_unused=True)
        train = count() - decode
        for parameter in parameters:
            parameter.requires_grad_(False)
    return dict(encode=encode, encode_train=train, decode=decode)


def count_forward(network: nn.Module, *inputs: Tensor) -> int:
    """Operations of one forward pass of a network that is on the meta device."""
    with _counting() as count, torch.no_grad():
        network(*inputs)
        return count()


@contextmanager
def _counting() -> Iterator[Callable[[], int]]:
    # only the math kernel of attention has products that are counted on every device
    with torch.random.fork_rng(devices=[]), torch.compiler.set_stance('force_eager'), sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as counter:
            yield counter.get_total_flops


@contextmanager
def _on_meta(network: nn.Module) -> Iterator[None]:
    """Disable activation checkpointing, synchronised statistics and whatever would move the VAE to the meta device."""
    changes: list[tuple[Any, str, Any]] = []
    for module in network.modules():
        if getattr(module, 'with_cp', False):
            changes.append((module, 'with_cp', False))
        if isinstance(module, nn.SyncBatchNorm):
            changes.append((module, 'training', False))
        if isinstance(codec := getattr(module, 'codec', None), LatentCodec):
            # a frozen VAE is replaced by latents as input; of a trained one, scaling remains
            changes.append((module, 'codec', None if codec.network is not None else copy.copy(codec)))
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    try:
        for module, name, value in changes:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


class _Segmentation(nn.Module):
    """The parts of an mmseg segmentor that compute in training: backbone, neck and all heads."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        features = self.model.extract_feat(x)
        auxiliary = getattr(self.model, 'auxiliary_head', None)
        heads = auxiliary if isinstance(auxiliary, nn.ModuleList) else [] if auxiliary is None else [auxiliary]
        return tuple(head(features) for head in (self.model.decode_head, *heads))


def call_of(model: Any, batch: int = BATCH) -> tuple[nn.Module, tuple[Tensor, ...], dict[str, Any]]:
    """The network of a model that is trained, and the arguments with which to call it, on the meta device.

    Raises:
        TypeError: The model is of another kind than `count_flops` counts.
    """
    indices = torch.zeros(batch, dtype=torch.int64, device='meta')
    if hasattr(model, 'denoiser'):
        route = getattr(model.denoiser, 'route', None)
        keep = None if route is None else route.draw(SampleKeys(indices, indices, seed=0))
        keywords = {} if keep is None else dict(keep=keep)
        return model.denoiser, (_latents(model.denoiser, batch), indices, indices), keywords
    if hasattr(model, 'decode_head'):
        return _Segmentation(model), (_latents(model.backbone, batch, model.data_preprocessor.size),), {}
    if not isinstance(model, USP | USPClassifier):
        raise TypeError(f'no way to count the operations of a {type(model).__name__}')
    if getattr(model.backbone, 'vae_encoder', None) is not None:
        side = model.backbone.geometry.img_size
        return model, (torch.empty(batch, 3, side, side, device='meta'),), dict(mode='tensor')
    if isinstance(model, USP):
        return model, (_latents(model.backbone, batch),), dict(mode='loss', keys=SampleKeys(indices, indices, seed=0))
    return model, (_latents(model.backbone, batch),), dict(mode='tensor')


def _latents(network: Any, batch: int, pixels: tuple[int, int] | None = None) -> Tensor:
    geometry: LatentGeometry = network.geometry
    height, width = pixels or (geometry.img_size, geometry.img_size)
    return torch.empty(batch, geometry.channels, height // geometry.stride, width // geometry.stride, device='meta')
