"""The common interface of all frozen VAEs.

Shape legend: N images, C latent channels, H×W image, h×w latent (H/stride × W/stride).
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from usp_mm.fileio.weights import weights_hash

#: Bounds to which the log-variance of a diagonal Gaussian posterior is clamped, as in diffusers and MAR. The lower bound also
#: stands for latents without variance.
LOGVAR_MIN, LOGVAR_MAX = -30.0, 20.0
#: Kinds of input that can be turned into latents.
InputKind = Literal['image', 'moments', 'latents']


class LatentCodec:
    """A frozen VAE: images <-> posterior moments -> scaled latents -> images.

    A codec is no `nn.Module`, so that its parameters never reach an optimizer, an EMA copy, DDP or a checkpoint, and `train()`,
    `init_weights()` and autocast do not affect it; `copy.deepcopy` returns the codec itself. Outputs are float32 in whatever
    dtype the network computes, and the network moves to the device of its input.

    Args:
        network: A module with `encode(images) -> moments` and `decode(unscaled latents) -> images`; None if only the scale is
            needed, as in training from cached latents.
        name: Name of the preset.
        channels: Number of latent channels, C.
        stride: Image pixels per latent pixel.
        patch_size: Patch size of the preset, in latent pixels.
        scale: Factor of `mean - shift`; None until `set_stats` is called.
        shift: Subtracted before scaling.
        dtype: Dtype of the network's weights and computations.
        encode_batch_size: Images that are encoded or decoded at a time; the whole batch if None.
        channels_last: Whether weights and images use `torch.channels_last`, which changes rounding. None uses it on a GPU in
            bfloat16 and float16, where convolutions work in this format.
        compile: Whether `encode` and `decode` run the network through `torch.compile`; see `compile`.
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
            self._hash = weights_hash(self.network)  # before the cast, so that the hash is the same for every dtype
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
        """Number of channels that `encode` returns, 2C: mean and log-variance."""
        return 2 * self.channels

    def kind_of(self, inputs: Tensor) -> InputKind:
        """The kind of a batch by its channels: 3 for images, 2C for moments (images with `PixelCodec`), C for latents.

        Raises:
            ValueError: The batch has another number of channels.
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
        """First 16 hex digits of the SHA-256 over sorted names and float32 weights; identifies the VAE that wrote a cache."""
        if self._hash is None:
            self._hash = weights_hash(self._loaded())
        return self._hash

    def to(self, device: torch.device | str) -> 'LatentCodec':
        """Move network and statistics to `device`, if they are elsewhere, and set the memory format; see `channels_last`."""
        device = torch.device(device)
        if device != self.device:
            if self.network is not None:
                self.network.to(device=device, memory_format=_memory_format(device, self.dtype))  # type: ignore[call-overload]
            self.scale, self.shift = _move(self.scale, device), _move(self.shift, device)
            self.device = device
            self._lay_out()
        return self

    def compile(self) -> 'LatentCodec':
        """Let `encode` and `decode` run the network through `torch.compile` from now on, which changes rounding.

        The first call with a new image or batch size takes a minute longer. `network_encode` and `network_decode` are not
        compiled.
        """
        if not self.compiled:
            self._compiled = dict(encode=torch.compile(self.network_encode), decode=torch.compile(self.network_decode))
        return self

    def set_stats(self, mean: Sequence[float] | Tensor, std: Sequence[float] | Tensor) -> None:
        """Scale each channel to zero mean and unit variance from now on.

        Args:
            mean, std: Mean and standard deviation of each channel of unscaled latents, C numbers each.

        Raises:
            ValueError: There are not C finite numbers, or a standard deviation is not positive.
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
        """Encode images into the moments of the posterior.

        Args:
            images: float[N, 3, H, W] in [-1, 1].

        Returns:
            float32[N, 2C, h, w], the mean and the log-variance, neither scaled nor clamped.

        Raises:
            ValueError: `images` is not float[N, 3, H, W], or H or W is not a multiple of the stride.
        """
        self._check_images(images)
        return self._run(self._compiled.get('encode', self.network_encode), images)

    def mode(self, moments: Tensor) -> Tensor:
        """The posterior's mean, scaled: float[N, 2C, h, w] -> float32[N, C, h, w]."""
        mean, _ = self._split(moments)
        return self._scaled(mean)

    def sample(self, moments: Tensor, noise: Tensor) -> Tensor:
        """Draw scaled latents from the posterior.

        Args:
            moments: float[N, 2C, h, w]; the log-variance is clamped to [-30, 20].
            noise: Standard normal noise, [N, C, h, w]. It is an argument so that the caller can repeat a draw.

        Returns:
            float32[N, C, h, w].

        Raises:
            ValueError: `moments` does not have 2C channels, or the shape of `noise` is not that of the mean.
        """
        mean, logvar = self._split(moments)
        if noise.shape != mean.shape:
            raise ValueError(f'noise is {tuple(noise.shape)}, but the posterior is {tuple(mean.shape)}')
        return self._scaled(mean + (0.5 * logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)).exp() * noise.float())

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Decode scaled latents into images.

        Args:
            latents: float[N, C, h, w].

        Returns:
            float32[N, 3, H, W], nominally in [-1, 1] but not clamped.

        Raises:
            ValueError: `latents` does not have C channels.
        """
        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"latents are {tuple(latents.shape)}, but VAE '{self.name}' decodes [N, {self.channels}, h, w]")
        scale, shift = self._affine(latents.device)
        return self._run(self._compiled.get('decode', self.network_decode), latents.float() / scale + shift)

    def network_encode(self, images: Tensor) -> Tensor:
        """Call only the network's encoder: images -> moments in the network's dtype, in one batch, with gradients."""
        moments: Tensor = self._loaded().encode(images)
        return moments

    def network_decode(self, latents: Tensor) -> Tensor:
        """Call only the network's decoder: unscaled latents -> images in the network's dtype, in one batch, with gradients."""
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
        """Convert the weights to the memory format of the images."""
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
    """The memory format in which the device computes convolutions without transposing."""
    half_on_gpu = device.type == 'cuda' and dtype != torch.float32
    return torch.channels_last if half_on_gpu else torch.preserve_format


def _move(value: Any, device: torch.device) -> Any:
    return value.to(device) if isinstance(value, Tensor) else value
