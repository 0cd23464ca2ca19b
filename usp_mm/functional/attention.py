"""Choose the kernel that computes attention on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

#: Kernels of torch's scaled dot product attention in order of preference; the first that supports a call's types is used.
PREFERRED = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
_HOPPER = (9, 0)


@contextmanager
def fast_attention(device: torch.device) -> Iterator[None]:
    """Prefer cuDNN's attention in the block, on a CUDA GPU of Hopper's generation or later.

    cuDNN takes bfloat16 and float16 whose head width is a multiple of 8 (72, of arch 'xl', is one); whatever it doesn't
    take goes to the next kernel of `PREFERRED`. Elsewhere torch's own order stands.
    """
    if device.type == 'cuda' and torch.version.hip is None and torch.cuda.get_device_capability(device) >= _HOPPER:
        with sdpa_kernel(PREFERRED, set_priority=True):
            yield
    else:
        yield
