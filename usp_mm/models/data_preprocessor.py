"""From images, cached moments or cached latents to the latents a model is fed."""

from collections.abc import Sequence

import torch
from mmpretrain.models import ClsDataPreprocessor, RandomBatchAugment
from torch import Tensor

from usp_mm.functional import random
from usp_mm.functional.ddpm import diffuse, linear_alpha_bar
from usp_mm.registry import MODELS
from usp_mm.vaes import build_codec

from .sample_keys import sample_keys


def _alpha_bar(alpha_bar: float | None = None, timestep: int | None = None) -> float:
    """ᾱ from exactly one of itself and a number of steps of DDPM's 1000-step linear schedule.

    Steps are counted as in DDPM's paper and in the official code's robustness runs: x_t is after t steps, ᾱ_0 = 1.
    """
    if (alpha_bar is None) == (timestep is None):
        raise ValueError(f'noise takes exactly one of alpha_bar={alpha_bar} and timestep={timestep}')
    if timestep is not None:
        if not 0 <= timestep <= 1000:
            raise ValueError(f'noise timestep={timestep} is not a number of steps of the 1000-step schedule: use 0 to 1000')
        return float(linear_alpha_bar()[timestep - 1]) if timestep else 1.0
    if not 0 <= alpha_bar <= 1:
        raise ValueError(f'noise alpha_bar={alpha_bar} must lie in [0, 1]')
    return alpha_bar


@MODELS.register_module()
class LatentDataPreprocessor(ClsDataPreprocessor):
    """Encode images with a frozen VAE; labels, one-hot scores and mixup/cutmix are mmpretrain's.

    The VAE is held outside the module tree: no parameter of it reaches a checkpoint, an optimizer,
    an EMA copy or DDP, and `.train()` and `init_weights()` do not touch it. What comes in is told
    apart by its channels: 3, an image in [0, 255]; twice the latent's, posterior moments; the
    latent's, scaled latents.

    Args:
        vae: a preset of `usp_mm.presets.VAES`. Backbone, decoder and head shapes follow from it.
        vae_path: weights, a local file or folder; the preset's hub id if None.
        vae_dtype: 'float32', 'bfloat16' or 'float16', the arithmetic of the VAE. Latents leave as float32.
        vae_stats: per-channel latent statistics, for presets that need them: a cache's manifest.
        load_vae: False to train from a cache without the VAE's weights; encoding and decoding then fail.
        encode_batch_size: images per VAE call; the whole batch if None.
        posterior: what training takes of the posterior, 'sample' or 'mode'; by default a sample of
            cached moments (the paper) and the mode of images (the official online path).
            Evaluation takes the mode. A sample's noise depends on (seed, epoch, sample).
        mean, std: of the image normalisation, in [0, 255], before the VAE (Table 11 ablates them).
        to_rgb: whether images come as BGR (mmcv's loading order).
        num_classes: for one-hot scores, needed with `batch_augments`.
        batch_augments: mmpretrain's RandomBatchAugment arguments (mixup, cutmix).
        mix_space: 'latent', mix after the VAE (official), or 'image', before it.
        noise: None, dict(alpha_bar=x) or dict(timestep=t): diffuse every latent to that level, or by t of DDPM's 1000
            linear steps (0: clean), in training and evaluation (robustness runs, appendix A).
    """

    #: What takes the arguments that are dicts.
    ARGUMENTS_OF = {'noise': _alpha_bar, 'batch_augments': RandomBatchAugment}

    def __init__(
        self,
        vae: str = 'sd-f8d4',
        vae_path: str | None = None,
        vae_dtype: str = 'float32',
        vae_stats: str | None = None,
        load_vae: bool = True,
        encode_batch_size: int | None = None,
        posterior: str | None = None,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        to_rgb: bool = True,
        num_classes: int | None = None,
        batch_augments: dict | None = None,
        mix_space: str = 'latent',
        noise: dict | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, batch_augments=batch_augments)
        _check_choice('posterior', posterior, ('mode', 'sample', None))
        _check_choice('mix_space', mix_space, ('latent', 'image'))
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.bgr_to_rgb, self.posterior, self.mix_space = to_rgb, posterior, mix_space
        self.set_noise(noise)
        self.keep_images = False
        self.codec = build_codec(
            vae, path=vae_path, dtype=vae_dtype, encode_batch_size=encode_batch_size, stats=vae_stats, load_weights=load_vae
        )

    #: Keys beside `inputs` that a generator with REPA is fed: what its teacher sees, or what it saw when a cache was made.
    TEACHER_KEYS = ('images', 'teacher_tokens')

    def set_noise(self, noise: dict | None) -> None:
        """From now on diffuse latents to this level, as the argument `noise` does."""
        self.noise_alpha_bar = None if noise is None else _alpha_bar(**noise)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collated images, moments or latents [N, ., ., .] -> dict(inputs=float32 latents, data_samples).

        A dict of inputs asks a generator for samples: it passes. With `keep_images`, also the batch's images, RGB in
        [0, 255], and its `teacher_tokens`, if it has them.
        """
        inputs = self.cast_data(data['inputs'])
        if isinstance(inputs, dict):
            return dict(inputs=inputs, data_samples=data.get('data_samples'))
        if not isinstance(inputs, Tensor):
            inputs = _stack(inputs)
        data_samples = data.get('data_samples')
        teacher = self._for_teacher(data, inputs) if self.keep_images else {}
        if self.mix_space == 'image' and self.batch_augments is not None and training:
            if inputs.shape[1] != 3:
                raise ValueError(
                    f"mix_space='image' needs images, got {inputs.shape[1]}-channel cached latents: "
                    "use mix_space='latent' or a data set of images"
                )
            out = super().forward(dict(inputs=self._normalize(inputs), data_samples=data_samples), training)
            out['inputs'] = self._latents(out['inputs'], data_samples, training)
        else:
            latents = self._latents(self._normalize(inputs), data_samples, training)
            out = super().forward(dict(inputs=latents, data_samples=data_samples), training)
        if self.noise_alpha_bar is not None:
            out['inputs'] = self._add_noise(out['inputs'], data_samples, training)
        return {**out, **teacher}

    def _for_teacher(self, data: dict, inputs: Tensor) -> dict[str, Tensor]:
        kept = {key: self.cast_data(data[key]) for key in self.TEACHER_KEYS if key in data}
        kept = {key: value if isinstance(value, Tensor) else _stack(value) for key, value in kept.items()}
        if inputs.shape[1] == 3:
            kept['images'] = inputs.flip(1) if self.bgr_to_rgb else inputs
        return kept

    def _normalize(self, inputs: Tensor) -> Tensor:
        """Images [0, 255] -> the VAE's range; moments and latents pass."""
        if inputs.shape[1] != 3:
            return inputs
        if self.bgr_to_rgb:
            inputs = inputs.flip(1)
        return (inputs.float() - self.mean) / self.std

    @torch.no_grad()
    def _latents(self, inputs: Tensor, data_samples: list | None, training: bool) -> Tensor:
        codec = self.codec.to(inputs.device)
        channels = inputs.shape[1]
        if channels == codec.channels and channels != 3:
            return inputs.float()
        from_image = channels == 3
        if from_image:
            moments = codec.encode(inputs)
        elif channels == codec.moment_channels:
            moments = inputs.float()
        else:
            raise ValueError(
                f"inputs have {channels} channels, but VAE '{codec.name}' takes images (3), moments "
                f'({2 * codec.channels}) or latents ({codec.channels}): name the VAE the cache was written with'
            )
        posterior = self.posterior or ('mode' if from_image else 'sample')
        if posterior == 'mode' or not training:
            return codec.mode(moments)
        samples, epochs, seed = sample_keys(data_samples, len(moments), moments.device, training)
        shape = (codec.channels, *moments.shape[2:])
        return codec.sample(moments, random.normal(samples, epochs, shape, seed=seed, stream='posterior'))

    def _add_noise(self, latents: Tensor, data_samples: list | None, training: bool) -> Tensor:
        samples, epochs, seed = sample_keys(data_samples, len(latents), latents.device, training)
        noise = random.normal(samples, epochs, tuple(latents.shape[1:]), seed=seed, stream='latent_noise')
        return diffuse(latents, self.noise_alpha_bar, noise)


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} must be one of {choices}')


def _stack(inputs: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(x.shape) for x in inputs}
    if len(shapes) > 1:
        raise ValueError(f'images of one batch differ in shape, {sorted(shapes)}: resize or crop them to one size')
    return torch.stack(tuple(inputs))
