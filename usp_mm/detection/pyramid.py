"""A feature pyramid from one map of a plain ViT (ViTDet, Li et al., ECCV 2022, arXiv 2203.16527, section 3)."""

from collections import OrderedDict

from timm.layers import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from usp_mm.registry import MODELS


@MODELS.register_module()
class SimpleFeaturePyramid(nn.Module):
    """Maps of strides s/4, s/2, s, 2s and 4s from the last map of a plain backbone, of stride s.

    The map is enlarged by transposed convolutions of kernel and stride 2, kept, or halved by max pooling. Each of the four
    results goes through a 1 × 1 and a 3 × 3 convolution without bias, each followed by a LayerNorm over the channels. The
    fifth map, which only the proposals use, takes every second pixel of the fourth (Feature Pyramid Networks, arXiv
    1612.03144). There are no lateral connections.

    Parameters are named `levels.LEVEL.LAYER`, the finest level first; the layers are `up1`, `up1_norm` and `up2` (of the levels
    that are enlarged), `reduce`, `reduce_norm`, `smooth`, `smooth_norm`.

    Args:
        in_channels: Channels D of the backbone's map, a multiple of 4.
        out_channels: Channels of every map of the pyramid.

    Raises:
        ValueError: `in_channels` is not a multiple of 4.
    """

    def __init__(self, in_channels: int, out_channels: int = 256) -> None:
        super().__init__()
        if in_channels % 4:
            raise ValueError(f'in_channels={in_channels} must be a multiple of 4: two transposed convolutions halve it')
        self.levels = nn.ModuleList(_level(in_channels, out_channels, doublings) for doublings in (2, 1, 0, -1))

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The last of the backbone's maps, float[N, D, h, w], to five maps float[N, out_channels, …], the finest first."""
        maps = [level(inputs[-1]) for level in self.levels]
        return (*maps, F.max_pool2d(maps[-1], kernel_size=1, stride=2))


def _level(dims: int, out: int, doublings: int) -> nn.Sequential:
    """The layers of one level, whose map has `2^doublings` times the rows and columns of the input."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if doublings == -1:
        layers['pool'] = nn.MaxPool2d(2)
    if doublings >= 1:
        layers['up1'], dims = nn.ConvTranspose2d(dims, dims // 2, 2, stride=2), dims // 2
    if doublings == 2:
        layers['up1_norm'], layers['up1_act'] = LayerNorm2d(dims), nn.GELU()
        layers['up2'], dims = nn.ConvTranspose2d(dims, dims // 2, 2, stride=2), dims // 2
    layers['reduce'], layers['reduce_norm'] = nn.Conv2d(dims, out, 1, bias=False), LayerNorm2d(out)
    layers['smooth'], layers['smooth_norm'] = nn.Conv2d(out, out, 3, padding=1, bias=False), LayerNorm2d(out)
    return nn.Sequential(layers)
