"""The frozen image encoders whose tokens a denoiser is aligned with.

Shape legend: N images, L = h×w patch tokens, E width.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from usp_mm.fileio.weights import weights_hash
from usp_mm.presets import TEACHERS, lookup, nearest

from . import networks

#: Image pixels per token side of a DiT or SiT with the VAEs and patch sizes of the presets.
TOKEN_PIXELS = 16
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Teacher:
    """A frozen image encoder, which is loaded when tokens are first requested.

    It holds its network outside every module tree, as `LatentCodec` does and for the same reasons.

    Args:
        load: Builds the network, then loads and checks its weights.
        run: (network, images) -> tokens [N, L, E], or a feature map [N, E, h, w].
        name: Name in errors and manifests.
        dim: Width E of the tokens.
        img_size: Image side in pixels.
        size: Side in pixels that images are resized to (bicubic, as in REPA).
        patch_size: Patch size of a vision transformer; None for other encoders.
        mean, std: Mean and standard deviation for images in [0, 255]; None takes them from timm's network.
        dtype: Data type in which the network computes; tokens are always float32.
        encode_batch_size: Images per call of the network; None encodes all at once.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        run: Callable[[nn.Module, Tensor], Tensor],
        *,
        name: str,
        dim: int,
        img_size: int,
        size: int,
        patch_size: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        dtype: str = 'float32',
        encode_batch_size: int | None = None,
    ) -> None:
        if encode_batch_size is not None and encode_batch_size < 1:
            raise ValueError(f'encode_batch_size={encode_batch_size} of the teacher must be at least 1, or None')
        if patch_size is not None and (size < patch_size or size % patch_size):
            below = max(size // patch_size, 1) * patch_size
            raise ValueError(
                f"teacher '{name}' has patches of {patch_size} pixels, which do not divide its image size {size}: "
                f'set repa.teacher.size, to {below} or {below + patch_size}'
            )
        self._load, self._run, self.name, self.dim = load, run, name, dim
        self.img_size, self.size, self.mean, self.std = img_size, size, mean, std
        self.dtype, self.encode_batch_size = lookup(DTYPES, dtype, 'dtype of the teacher'), encode_batch_size
        self.grid: tuple[int, int] | None = None if patch_size is None else (size // patch_size, size // patch_size)
        self.device = torch.device('cpu')
        self._network: nn.Module | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> 'Teacher':
        return self

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._network is not None

    @property
    def network(self) -> nn.Module:
        """The encoder, which is loaded on first access.

        Raises:
            FileNotFoundError: There are no weights.
            ValueError: The weights are those of another model.
        """
        if self._network is None:
            with torch.random.fork_rng(devices=[]):  # building draws random weights before the real ones are loaded
                network = self._load().requires_grad_(False)
            network.eval()  # in two steps: mmpretrain's backbones return nothing
            if self.mean is None:
                self.mean, self.std = networks.timm_normalization(network)
            self._network = network.to(self.device, self.dtype)
            self._stats = torch.tensor([self.mean, self.std], device=self.device).view(2, -1, 1, 1)
        return self._network

    def to(self, device: torch.device | str) -> 'Teacher':
        """Move the network to a device; returns the teacher itself."""
        device = torch.device(device)
        if device != self.device:
            self.device = device
            if self._network is not None:
                self._network.to(device)
                self._stats = self._stats.to(device)
        return self

    def probe(self) -> None:
        """Load the network and encode an empty image, which also sets `grid`.

        Raises:
            FileNotFoundError: There are no weights.
            ValueError: The weights are those of another model, or the tokens do not have width `dim` or a square grid.
        """
        self.tokens(torch.zeros(1, 3, self.img_size, self.img_size, dtype=torch.uint8, device=self.device))

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Patch tokens of images.

        Args:
            images: RGB images in [0, 255] of any dtype, [N, 3, img_size, img_size].

        Returns:
            float32[N, L, E], row by row of the grid.

        Raises:
            ValueError: The images have another shape, or the output is not a square grid of tokens of width E.
        """
        if tuple(images.shape[1:]) != (3, self.img_size, self.img_size):
            expected = f'[N, 3, {self.img_size}, {self.img_size}]'
            raise ValueError(f"images for teacher '{self.name}' are {tuple(images.shape)}, expected {expected}")
        self.to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            chunks = images.split(self.encode_batch_size or max(1, len(images)))
            return torch.cat([self._encode(chunk) for chunk in chunks])

    def _encode(self, images: Tensor) -> Tensor:
        network = self.network
        mean, std = self._stats
        pixels = (images.float() - mean) / std
        if self.size != self.img_size:
            pixels = interpolate(pixels, (self.size, self.size), mode='bicubic')
        out = self._run(network, pixels.to(self.dtype)).float()
        if out.ndim == 4:
            grid, out = (out.shape[2], out.shape[3]), out.flatten(2).transpose(1, 2)
        else:
            side = math.isqrt(out.shape[1]) if out.ndim == 3 else 0
            grid = (side, side)
        if out.ndim != 3 or out.shape[2] != self.dim or grid[0] != grid[1] or grid[0] * grid[1] != out.shape[1]:
            raise ValueError(
                f"teacher '{self.name}' gave {list(out.shape)} for {len(images)} images: expected a square of patch tokens, "
                f'without class token, of width {self.dim}'
            )
        self.grid = grid
        return out

    def facts(self) -> dict[str, Any]:
        """Facts that a cache of the teacher's tokens records. Loads the network if necessary.

        Keys: name, dim, size, grid, dtype and weight_hash (of the weights in that dtype).
        """
        if not self.loaded:
            self.probe()
        dtype = str(self.dtype).removeprefix('torch.')
        grid = list(self.grid or ())
        return dict(
            name=self.name, dim=self.dim, size=self.size, grid=grid, dtype=dtype, weight_hash=weights_hash(self.network)
        )


def build_teacher(cfg: str | Mapping[str, Any], img_size: int) -> Teacher:
    """Build a teacher from its config. Its weights are not read yet.

    Args:
        cfg: A preset of `usp_mm.presets.TEACHERS` ('dinov2-b'), timm's name of a model, or a dict. Its keys are either
            - name: a preset or timm's name of a model; path: its weights, a file or a folder downloaded from timm's hub (by
              default they are downloaded); or
            - backbone: config of a registered image encoder whose (last) output is a map [N, E, h, w] or patch tokens
              [N, L, E]; checkpoint: its weights, whose names begin with prefix (default 'backbone.'); dim: the width E; mean,
              std: normalisation in [0, 255], by default ImageNet's; name: its name in errors and in caches of its tokens;
            and in both cases
            - size: side in pixels that images are resized to. The default for a vision transformer with patch size p is
              img_size·p/16, so that its tokens match those of a DiT or SiT (REPA: 224 for DINOv2's p = 14 and 256 pixels);
              other encoders get the image without resizing;
            - dtype: data type of the computation, 'float32', 'bfloat16' or 'float16'; encode_batch_size: images per call.
        img_size: Image side in pixels.

    Raises:
        ValueError: A name or key is unknown, or the patch size does not divide `size`.
    """
    cfg = dict(name=cfg) if isinstance(cfg, str) else dict(cfg)
    build: Callable[..., Teacher] = _backbone_teacher if 'backbone' in cfg else _named_teacher
    _, *taken = inspect.signature(build).parameters.values()
    valid = [one.name for one in taken]
    for key in cfg:
        if key not in valid:
            raise ValueError(f"unknown key '{key}' in repa.teacher: expected {valid}{nearest(key, valid)}")
    if missing := [one.name for one in taken if one.default is one.empty and not cfg.get(one.name)]:
        fix = 'a cache knows it by its name' if 'backbone' in cfg else f'one of {sorted(TEACHERS)}, or a model of timm'
        kind = ' with a backbone' if 'backbone' in cfg else f' {cfg}'
        raise ValueError(f'repa.teacher{kind} needs {" and ".join(missing)} ({fix})')
    return build(img_size, **cfg)


def _named_teacher(
    img_size: int,
    *,
    name: str,
    path: str | Path | None = None,
    size: int | None = None,
    dtype: str = 'float32',
    encode_batch_size: int | None = None,
) -> Teacher:
    model, dim, patch = TEACHERS[name] if name in TEACHERS else networks.timm_shape(name)
    size = size or (img_size if patch is None else img_size * patch // TOKEN_PIXELS)
    return Teacher(
        lambda: networks.load_timm(model, path, None if patch is None else size),
        networks.run_timm,
        name=name,
        dim=dim,
        img_size=img_size,
        size=size,
        patch_size=patch,
        dtype=dtype,
        encode_batch_size=encode_batch_size,
    )


def _backbone_teacher(
    img_size: int,
    *,
    backbone: dict[str, Any],
    name: str,
    checkpoint: str | Path,
    dim: int,
    prefix: str = 'backbone.',
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | None = None,
    dtype: str = 'float32',
    encode_batch_size: int | None = None,
) -> Teacher:
    return Teacher(
        lambda: networks.load_backbone(backbone, checkpoint, prefix),
        networks.run_backbone,
        name=name,
        dim=dim,
        img_size=img_size,
        size=size or img_size,
        mean=mean,
        std=std,
        dtype=dtype,
        encode_batch_size=encode_batch_size,
    )
