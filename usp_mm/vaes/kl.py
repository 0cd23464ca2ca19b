"""The convolutional KL autoencoder of latent diffusion (arXiv 2112.10752, section 3.1 and appendix G).

MAR's KL-16 (arXiv 2406.11838) and VA-VAE (arXiv 2501.01423) are of this family. Parameter names are those of their
checkpoints, and widths, depth and attention are inferred from the shapes in a checkpoint.

Shape legend: N images, H×W pixels, D feature channels, Z channels inside, C latent channels.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from usp_mm.fileio.strict_loading import load_exactly

_GROUPS = 32


@dataclass(frozen=True)
class KLStructure:
    """The structure of a KL autoencoder, which determines all of its shapes.

    Attributes:
        base: Number of channels after the first convolution.
        widths: Number of channels at each resolution, the finest first.
        num_blocks: Residual blocks per resolution in the encoder (the decoder has one more).
        z_channels: Number of channels between encoder and `quant_conv`, Z.
        latent_channels: Number of latent channels, C.
        encoder_attention, decoder_attention: Resolutions at which each block is followed by attention.
    """

    base: int
    widths: tuple[int, ...]
    num_blocks: int
    z_channels: int
    latent_channels: int
    encoder_attention: frozenset[int] = frozenset()
    decoder_attention: frozenset[int] = frozenset()

    @property
    def stride(self) -> int:
        """Image pixels per latent pixel."""
        return int(2 ** (len(self.widths) - 1))

    @classmethod
    def infer(cls, shapes: Mapping[str, tuple[int, ...]]) -> 'KLStructure':
        """Infer the structure from the names and shapes of the parameters.

        Raises:
            ValueError: Parameters that are needed for this are missing, or a width is not a multiple of 32.
        """
        levels = _indices(shapes, r'encoder\.down\.(\d+)\.')
        blocks = _indices(shapes, r'encoder\.down\.0\.block\.(\d+)\.')
        first = ['encoder.conv_in.weight', 'post_quant_conv.weight']
        needed = first + [f'encoder.down.{i}.block.0.conv1.weight' for i in range(max(levels, default=0) + 1)]
        if absent := [name for name in needed if len(shapes.get(name, ())) != 4]:
            raise ValueError(f'no KL autoencoder: weights {absent[:3]} are missing or not 4-dimensional')
        base, *widths = (shapes[name][0] for name in needed if name != first[1])
        if bad := [width for width in (base, *widths) if width % _GROUPS or not width]:
            raise ValueError(f'no KL autoencoder: widths {bad} are not multiples of {_GROUPS}, the groups of its norms')
        z_channels, latent_channels = shapes[first[1]][:2]
        return cls(
            base=base,
            widths=tuple(widths),
            num_blocks=max(blocks) + 1,
            z_channels=z_channels,
            latent_channels=latent_channels,
            encoder_attention=frozenset(_indices(shapes, r'encoder\.down\.(\d+)\.attn\.')),
            decoder_attention=frozenset(_indices(shapes, r'decoder\.up\.(\d+)\.attn\.')),
        )


class KLAutoencoder(nn.Module):
    """Images float[N, 3, H, W] <-> moments [N, 2C, h, w] and latents [N, C, h, w], unscaled."""

    def __init__(self, structure: KLStructure) -> None:
        super().__init__()
        z, c = structure.z_channels, structure.latent_channels
        self.encoder, self.decoder = Encoder(structure), Decoder(structure)
        self.quant_conv = nn.Conv2d(2 * z, 2 * c, 1)
        self.post_quant_conv = nn.Conv2d(c, z, 1)

    def encode(self, images: Tensor) -> Tensor:
        """Images -> mean and log-variance."""
        moments: Tensor = self.quant_conv(self.encoder(images))
        return moments

    def decode(self, latents: Tensor) -> Tensor:
        """Latents -> images."""
        images: Tensor = self.decoder(self.post_quant_conv(latents))
        return images


class Encoder(nn.Module):
    """[N, 3, H, W] -> [N, 2Z, h, w]."""

    def __init__(self, structure: KLStructure) -> None:
        super().__init__()
        widths, last = structure.widths, structure.widths[-1]
        self.conv_in = _conv3(3, structure.base)
        self.down = nn.ModuleList()
        for i, (before, width) in enumerate(zip((structure.base, *widths), widths, strict=False)):
            step = Downsample(width) if i < len(widths) - 1 else None
            attention = i in structure.encoder_attention
            self.down.append(Level(before, width, structure.num_blocks, attention, downsample=step))
        self.mid = Middle(last)
        self.norm_out = _norm(last)
        self.conv_out = _conv3(last, 2 * structure.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """[N, Z, h, w] -> [N, 3, H, W]. Resolutions are numbered from the finest, as in the encoder."""

    def __init__(self, structure: KLStructure) -> None:
        super().__init__()
        widths, last = structure.widths, structure.widths[-1]
        self.conv_in = _conv3(structure.z_channels, last)
        self.mid = Middle(last)
        self.up = nn.ModuleList()
        for i, (width, before) in enumerate(zip(widths, (*widths[1:], last), strict=True)):
            step = Upsample(width) if i > 0 else None
            attention = i in structure.decoder_attention
            self.up.append(Level(before, width, structure.num_blocks + 1, attention, upsample=step))
        self.norm_out = _norm(widths[0])
        self.conv_out = _conv3(widths[0], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if any, then the step to the next one."""

    def __init__(
        self,
        before: int,
        width: int,
        num_blocks: int,
        attention: bool,
        downsample: nn.Module | None = None,
        upsample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(width if i else before, width) for i in range(num_blocks))
        self.attn = nn.ModuleList(Attention(width) for _ in range(num_blocks if attention else 0))
        self.downsample, self.upsample = downsample, upsample

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        step = self.downsample or self.upsample
        return x if step is None else step(x)


class Middle(nn.Module):
    """Block, attention, block at the coarsest resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = ResidualBlock(width, width), Attention(width), ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class ResidualBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1×1 shortcut where the width changes."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(before), _conv3(before, width)
        self.norm2, self.conv2 = _norm(width), _conv3(width, width)
        if before != width:
            self.nin_shortcut = nn.Conv2d(before, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, 'nin_shortcut') else x)


class Attention(nn.Module):
    """x + single-head attention among the pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = (conv(y).flatten(2).mT[:, None] for conv in (self.q, self.k, self.v))  # [N, 1, hw, D]
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].mT.reshape(x.shape)
        return x + self.proj_out(y)


class Downsample(nn.Module):
    """Half the side; padded right and below only, so that pixel (i, j) sees (2i…2i+2, 2j…2j+2)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Twice the side, nearest neighbour, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = _conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode='nearest'))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(_GROUPS, width, eps=1e-6)


def _conv3(before: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, padding=1)


def _indices(names: Mapping[str, tuple[int, ...]], pattern: str) -> set[int]:
    """The numbers that the group of `pattern` matches in the names."""
    return {int(match[1]) for name in names if (match := re.match(pattern, name))}


def load_autoencoder(weights: Mapping[str, Tensor], source: str) -> tuple[KLAutoencoder, KLStructure]:
    """Build the autoencoder that fits `weights`, and load them in float32.

    Args:
        weights: Name -> tensor for every parameter, and nothing else.
        source: Name of the weights in error messages.

    Raises:
        ValueError: Parameters are missing, unexpected or of another shape.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    try:
        structure = KLStructure.infer(shapes)
    except ValueError as error:
        raise ValueError(f'{source}: {error}') from None
    with torch.device('meta'):
        network = KLAutoencoder(structure)
    weights = {name: tensor.float() for name, tensor in weights.items()}
    what = f'a KL autoencoder of widths {structure.widths}'
    load_exactly(network, weights, source, what, fix='give a file with only its weights', assign=True)
    return network, structure
