"""The contract of a frozen VAE.

Shape legend: N images, C latent channels, H×W image, h×w latent (H/stride × W/stride).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from usp_mm.weight_files import weights_hash

#: Bounds that a diagonal Gaussian posterior clamps its log-variance to (diffusers, MAR): nothing beyond them matters. The lower
#: one is that of latents without a spread.
LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0
#: What a batch can hold that becomes latents.
InputKind = Literal['image', 'moments', 'latents']


class LatentCodec:
    """A frozen VAE: images <-> posterior moments -> scaled latents -> images.

    It holds its network outside every module tree, so that no parameter of it reaches an optimizer, an EMA copy, DDP or
    a checkpoint, and `train()`, `init_weights()` and autocast never touch it; a deep copy of it is itself.
    Whatever the network computes in, float32 comes out. The network follows its input's device.

    Args:
        network: a module with `encode(images) -> moments` and `decode(unscaled latents) -> images`; None where only
            the scale is needed (training from cached latents).
        name: the preset's.
        channels: C.
        stride: image pixels per latent pixel.
        patch_size: the preset's patch, in latent pixels.
        scale: multiplies `mean - shift`; None until `set_stats`.
        shift: subtracted before scaling.
        dtype: the network's arithmetic.
        encode_batch_size: images per network call, encoding and decoding; all at once if None.
        channels_last: whether weights and images lie in `torch.channels_last`, which rounds otherwise; by default on a GPU
            in bfloat16 and float16, whose convolutions read it.
        compile: whether `encode` and `decode` run the network through `torch.compile`; see `compile`.
    """

    image_channels = 3

    def __init__(
        self,
        network: nn.Module | None,
        *,
        name: str,
        channels: int,
        stride: int,
        patch_size: int,
        scale: float | None,
        shift: float = 0.0,
        dtype: torch.dtype = torch.float32,
        encode_batch_size: int | None = None,
        channels_last: bool | None = None,
        compile: bool = False,
    ) -> None:
        if encode_batch_size is not None and encode_batch_size < 1:
            raise ValueError(f'encode_batch_size={encode_batch_size} must be at least 1, or None for the whole batch')
        self.name, self.channels, self.stride, self.patch_size = name, channels, stride, patch_size
        self.scale: float | Tensor | None = scale
        self.shift: float | Tensor = shift
        self.dtype, self.encode_batch_size = dtype, encode_batch_size
        self.device = torch.device('cpu')
        self.channels_last = channels_last
        self._compiled: dict[str, Callable[[Tensor], Tensor]] = {}
        self._hash: str | None = None
        self.network = None if network is None else network.eval().requires_grad_(False)
        if self.network is not None and dtype != torch.float32:
            self._hash = weights_hash(self.network)  # of the weights as loaded: the same in every arithmetic
            self.network.to(dtype)
        self._lay_out()
        if compile:
            self.compile()

    def __deepcopy__(self, memo: dict[int, Any]) -> 'LatentCodec':
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.name}', {self.channels}×H/{self.stride}×W/{self.stride}, {self.dtype})"

    @property
    def moment_channels(self) -> int:
        """Channels that `encode` returns: mean and log-variance."""
        return 2 * self.channels

    def kind_of(self, inputs: Tensor) -> InputKind:
        """What a batch [N, ., ., .] holds, by its channels: 3, images; 2C, moments (of `PixelCodec`, images); C, latents.

        Raises:
            ValueError: another number of channels.
        """
        channels = inputs.shape[1]
        if channels == self.image_channels:
            return 'image'
        if channels == self.moment_channels:
            return 'moments'
        if channels == self.channels:
            return 'latents'
        raise ValueError(
            f"inputs have {channels} channels, but VAE '{self.name}' takes images ({self.image_channels}), moments "
            f'({self.moment_channels}) or latents ({self.channels}): name the VAE the cache was written with'
        )

    @property
    def compiled(self) -> bool:
        """Whether `encode` and `decode` run the network through `torch.compile`."""
        return bool(self._compiled)

    @property
    def weight_hash(self) -> str:
        """First 16 hex digits of the SHA-256 over sorted names and float32 weights: which VAE wrote a cache."""
        if self._hash is None:
            self._hash = weights_hash(self._loaded())
        return self._hash

    def to(self, device: torch.device | str) -> 'LatentCodec':
        """Move network and statistics, unless they are there already; in 16 bits on a GPU convolutions get channels last."""
        device = torch.device(device)
        if device != self.device:
            if self.network is not None:
                self.network.to(device=device, memory_format=_memory_format(device, self.dtype))  # type: ignore[call-overload]
            self.scale, self.shift = _move(self.scale, device), _move(self.shift, device)
            self.device = device
            self._lay_out()
        return self

    def compile(self) -> 'LatentCodec':
        """Let `encode` and `decode` run the network through `torch.compile` from now on, which rounds otherwise.

        The first call with images of a size, or a number of them, takes a minute longer. `network_encode` and
        `network_decode` stay as they are.
        """
        if not self.compiled:
            self._compiled = dict(encode=torch.compile(self.network_encode), decode=torch.compile(self.network_decode))
        return self

    def set_stats(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Scale each channel to zero mean and unit variance from now on.

        Args:
            mean, std: C numbers each, statistics of unscaled latents.

        Raises:
            ValueError: not C finite numbers, or a std that is not positive.
        """
        shift, spread = (torch.as_tensor(x, dtype=torch.float32, device=self.device).flatten() for x in (mean, std))
        for what, values in (('latent_mean', shift), ('latent_std', spread)):
            if len(values) != self.channels:
                raise ValueError(f"{what} has {len(values)} numbers, but VAE '{self.name}' has {self.channels} channels")
            if not values.isfinite().all() or (values is spread and (values <= 0).any()):
                raise ValueError(f'{what}={values.tolist()} must be finite, and a std positive: compute the statistics again')
        self.shift, self.scale = shift.view(-1, 1, 1), 1 / spread.view(-1, 1, 1)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Images -> moments of the posterior.

        Args:
            images: float[N, 3, H, W] in [-1, 1].

        Returns:
            float32[N, 2C, h, w], mean and log-variance, neither scaled nor clamped.

        Raises:
            ValueError: not such images, or sides that the stride does not divide.
        """
        self._check_images(images)
        return self._run(self._compiled.get('encode', self.network_encode), images)

    def mode(self, moments: Tensor) -> Tensor:
        """The posterior's mean, scaled: float[N, 2C, h, w] -> float32[N, C, h, w]."""
        mean, _ = self._split(moments)
        return self._scaled(mean)

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        """A draw from the posterior, scaled.

        Args:
            moments: float[N, 2C, h, w]; the log-variance is clamped to [-30, 20].
            noise: standard normal, [N, C, h, w]: the caller's, so that a draw can be repeated.

        Returns:
            float32[N, C, h, w].

        Raises:
            ValueError: another number of channels, or noise of another shape than the mean's.
        """
        mean, logvar = self._split(moments)
        if noise.shape != mean.shape:
            raise ValueError(f'noise is {tuple(noise.shape)}, but the posterior is {tuple(mean.shape)}')
        return self._scaled(mean + (0.5 * logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)).exp() * noise.float())

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents -> images.

        Args:
            latents: float[N, C, h, w].

        Returns:
            float32[N, 3, H, W], nominally in [-1, 1] but not clamped.

        Raises:
            ValueError: another number of channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"latents are {tuple(latents.shape)}, but VAE '{self.name}' decodes [N, {self.channels}, h, w]")
        scale, shift = self._affine(latents.device)
        return self._run(self._compiled.get('decode', self.network_decode), latents.float() / scale + shift)

    def network_encode(self, images: Tensor) -> Tensor:
        """The bare network, in its own dtype: images -> moments; no chunks, and gradients flow."""
        moments: Tensor = self._loaded().encode(images)
        return moments

    def network_decode(self, latents: Tensor) -> Tensor:
        """The bare network, in its own dtype: unscaled latents -> images; no chunks, and gradients flow."""
        images: Tensor = self._loaded().decode(latents)
        return images

    def _loaded(self) -> Any:
        if self.network is None:
            raise ValueError(
                f"VAE '{self.name}' was built without weights, for cached latents: build it with load_weights=True"
            )
        return self.network

    def _run(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        self.to(batch.device)
        with torch.autocast(batch.device.type, enabled=False):
            chunks = batch.split(self.encode_batch_size) if self.encode_batch_size else (batch,)
            layout = self._layout
            out = torch.cat([function(chunk.to(self.dtype, memory_format=layout)).float() for chunk in chunks])
            return out.contiguous() if layout is torch.channels_last else out

    def _lay_out(self) -> None:
        """Bring the weights into the memory format that images get too."""
        wanted = self.channels_last
        if wanted is None:
            wanted = self.device.type == 'cuda' and self.dtype != torch.float32
        self._layout = torch.channels_last if wanted else torch.preserve_format
        if wanted and self.network is not None:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _split(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        if moments.ndim != 4 or moments.shape[1] != self.moment_channels:
            expected = f'[N, {self.moment_channels}, h, w] (mean and log-variance)'
            raise ValueError(f"moments are {tuple(moments.shape)}, but those of VAE '{self.name}' are {expected}")
        mean, logvar = moments.float().chunk(2, dim=1)
        return mean, logvar

    def _scaled(self, mean: Tensor) -> Tensor:
        scale, shift = self._affine(mean.device)
        return (mean - shift) * scale

    def _affine(self, device: torch.device) -> tuple[float | Tensor, float | Tensor]:
        if self.scale is None:
            raise ValueError(
                f"VAE '{self.name}' scales each channel by statistics it was not given: pass `stats=`, the manifest.json "
                "of a latent cache or a dict or JSON file with lists 'latent_mean' and 'latent_std'"
            )
        return _move(self.scale, device), _move(self.shift, device)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.image_channels:
            raise ValueError(
                f"images are {tuple(images.shape)}, but VAE '{self.name}' encodes [N, {self.image_channels}, H, W]"
            )
        if not images.is_floating_point():
            raise ValueError(f"images are {images.dtype}, but VAE '{self.name}' encodes floats in [-1, 1]: (x - 127.5) / 127.5")
        for what, side in zip(('high', 'wide'), images.shape[2:], strict=True):
            if side % self.stride or side == 0:
                below = side // self.stride * self.stride
                valid = ' or '.join(str(x) for x in (below, below + self.stride) if x)
                raise ValueError(
                    f"images are {side} pixels {what}, but VAE '{self.name}' has stride {self.stride}: use {valid}"
                )


def _memory_format(device: torch.device, dtype: torch.dtype) -> torch.memory_format:
    """What a device's convolutions work on without transposing."""
    half_on_gpu = device.type == 'cuda' and dtype != torch.float32
    return torch.channels_last if half_on_gpu else torch.preserve_format


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
