"""Network calls recorded as CUDA graphs: for small batches, launching the kernels takes longer than running them."""

from collections.abc import Callable

import torch
from torch import Tensor

#: Largest batch size for which launching the kernels takes longer than running them.
MOST_SAMPLES = 8


def pays_off(device: torch.device, num_samples: int) -> bool:
    """Whether CUDA graphs make sampling faster for a batch of `num_samples` on this device."""
    return device.type == 'cuda' and torch.version.hip is None and num_samples <= MOST_SAMPLES


class GraphedCall:
    """Records a function of tensors as a CUDA graph and replays it.

    Shapes must be the same in every call, and autograd must be off. The first call runs normally on a side stream, so that
    kernels are selected and compiled. The second call is recorded, and all later ones replay the recording.
    """

    def __init__(self, call: Callable[..., Tensor]) -> None:
        self.call, self.warm = call, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The function's result, as a new tensor that later calls do not overwrite."""
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
