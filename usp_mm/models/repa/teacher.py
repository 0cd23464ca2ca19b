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

from usp_mm.presets import TEACHERS, lookup, nearest
from usp_mm.weight_files import weights_hash

from . import networks

#: Pixels of the image a token of a DiT or SiT covers, in each direction, with the presets' VAEs and patches.
TOKEN_PIXELS = 16
DTYPES = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Teacher:
    """A frozen encoder, loaded when it is first asked for tokens.

    It holds its network outside every module tree, as `LatentCodec` does and for the same reasons.

    Args:
        load: makes the network, and loads and checks its weights.
        run: (network, images) -> tokens [N, L, E], or a map [N, E, h, w].
        name: in errors and manifests.
        dim: E.
        img_size: side of the images, pixels.
        size: to which they are resized (bicubic, as in REPA).
        patch_size: of a vision transformer, None of other encoders.
        mean, std: of the normalisation, in [0, 255]; None where the network says them (timm).
        dtype: the network's arithmetic; tokens are float32.
        encode_batch_size: images a call; all at once if None.
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
        """The encoder; asking loads it.

        Raises:
            FileNotFoundError: no weights.
            ValueError: weights of another model.
        """
        if self._network is None:
            with torch.random.fork_rng(devices=[]):  # random weights come before the loaded ones
                network = self._load().requires_grad_(False)
            network.eval()  # in two steps: mmpretrain's backbones return nothing
            if self.mean is None:
                self.mean, self.std = networks.timm_normalization(network)
            self._network = network.to(self.device, self.dtype)
            self._stats = torch.tensor([self.mean, self.std], device=self.device).view(2, -1, 1, 1)
        return self._network

    def to(self, device: torch.device | str) -> 'Teacher':
        """Move it, unless it is there already."""
        device = torch.device(device)
        if device != self.device:
            self.device = device
            if self._network is not None:
                self._network.to(device)
                self._stats = self._stats.to(device)
        return self

    def probe(self) -> None:
        """Load it and encode an empty image: from then on `grid` is known.

        Raises:
            FileNotFoundError: no weights.
            ValueError: weights of another model, or tokens of another width than `dim`, or that are not square.
        """
        self.tokens(torch.zeros(1, 3, self.img_size, self.img_size, dtype=torch.uint8, device=self.device))

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Patch tokens of images.

        Args:
            images: [N, 3, img_size, img_size], RGB in [0, 255], of any dtype.

        Returns:
            float32[N, L, E], row by row.

        Raises:
            ValueError: other images, or an output that is no square of tokens of width E.
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
        """What a cache of its tokens notes; loads it.

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
    """A teacher from its config; its weights are not read yet.

    Args:
        cfg: a preset of `usp_mm.presets.TEACHERS` ('dinov2-b'), or timm's name of a model; or a dict of
            - name: either of these; path: its weights, a file, or a folder as timm's hub has them (by default the hub); or
            - backbone: config of a registered encoder of images whose (last) output is a map [N, E, h, w] or patch tokens
              [N, L, E]; checkpoint: its weights, whose names begin with prefix (default 'backbone.'); dim: E; mean, std: in
              [0, 255], by default ImageNet's; name: what caches of its tokens and errors call it;
            - size: side that images are resized to. By default a vision transformer of patch p gets img_size·p/16, so that
              it has a token where a DiT or SiT has (REPA: 224 for DINOv2's p = 14 and 256 pixels), others the image as it is;
            - dtype: its arithmetic, 'float32', 'bfloat16' or 'float16'; encode_batch_size: images a call.
        img_size: side of the images, pixels.

    Raises:
        ValueError: an unknown name or key, or a size that patches don't divide.
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
