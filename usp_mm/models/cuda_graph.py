"""A network call recorded as a CUDA graph: small batches wait for the kernels' launches, not for the kernels."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Samples of a batch up to which launches take longer than kernels.
MOST_SAMPLES = 8


def pays_off(device: torch.device, num_samples: int) -> bool:
    """Whether a batch of so many samples is sampled by graphs."""
    return device.type == 'cuda' and torch.version.hip is None and num_samples <= MOST_SAMPLES


class GraphedCall:
    """A call with tensors of the same shapes every time, outside autograd.

    The first call runs as it is, beside the current stream, so that kernels are chosen and compiled; the second is recorded;
    from then on the recording is replayed.
    """

    def __init__(self, call: Callable[..., Tensor]) -> None:
        self.call, self.warm = call, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the call returns, in memory of its own."""
        if not self.warm:
            return self._warm_up(*inputs)
        if self.graph is None:
            self.inputs, self.graph = [value.clone() for value in inputs], torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.out = self.call(*self.inputs)
        for held, value in zip(self.inputs, inputs, strict=True):
            held.copy_(value)
        self.graph.replay()
        return self.out.clone()

    def _warm_up(self, *inputs: Tensor) -> Tensor:
        stream, self.warm = torch.cuda.Stream(), True
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            out = self.call(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        return out
