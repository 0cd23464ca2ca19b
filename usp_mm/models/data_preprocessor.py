"""Data preprocessor that turns images, cached moments or cached latents into a model's input latents."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmpretrain.models import ClsDataPreprocessor, RandomBatchAugment
from mmpretrain.structures import DataSample
from torch import Tensor

from usp_mm.functional.ddpm import diffuse, linear_alpha_bar
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import older_settings
from usp_mm.vaes import build_codec
from usp_mm.vaes.base import InputKind
from usp_mm.vaes.build import build_preset
from usp_mm.vaes.settings import DEFAULT, fold_preprocessor, vae_settings

from .random_keys import SampleKeys, labels_of, sample_keys, to_device

#: What `posterior='auto'` means in training, by kind of input.
AUTO_POSTERIOR: dict[InputKind, str] = {'image': 'mode', 'moments': 'sample'}


def _alpha_bar(alpha_bar: float | None = None, timestep: int | None = None) -> float:
    """ᾱ, given either directly or as a number of steps of DDPM's linear schedule with 1000 steps.

    Steps are counted as in DDPM's paper and in the official code's robustness runs: x_t is the state after t steps, ᾱ_0 = 1.
    """
    if (alpha_bar is None) == (timestep is None):
        raise ValueError(f'noise takes exactly one of alpha_bar={alpha_bar} and timestep={timestep}')
    if timestep is not None:
        if not 0 <= timestep <= 1000:
            raise ValueError(f'noise timestep={timestep} is not a number of steps of the 1000-step schedule: use 0 to 1000')
        return float(linear_alpha_bar()[timestep - 1]) if timestep else 1.0
    assert alpha_bar is not None
    if not 0 <= alpha_bar <= 1:
        raise ValueError(f'noise alpha_bar={alpha_bar} must lie in [0, 1]')
    return alpha_bar


def preprocessor_config(cfg: dict | None) -> dict:
    """A copy of the config of a model's data preprocessor, with defaults for `type` and `vae`."""
    cfg = {'type': 'LatentDataPreprocessor', 'vae': DEFAULT, **(cfg or {})}
    fold_preprocessor(cfg)
    return cfg


@MODELS.register_module()
@older_settings(fold_preprocessor, 'vae_path', 'vae_dtype', 'vae_stats', 'encode_batch_size')
class LatentDataPreprocessor(ClsDataPreprocessor):
    """Encodes images with a frozen VAE and prepares labels, one-hot scores and mixup/cutmix as mmpretrain does.

    The VAE is held outside the module tree: its parameters reach no checkpoint, optimizer, EMA copy or DDP wrapper, and
    `.train()` and `init_weights()` do not touch it. Inputs are images in [0, 255], posterior moments or scaled latents. The
    number of channels decides which, see `LatentCodec.kind_of`. Copies to the device are asynchronous.

    Args:
        vae: A preset of `usp_mm.presets.VAES`, or a dict of

            - name: the preset. The shapes of backbone, decoder and head follow from it.
            - path: a local file or folder with the VAE's weights; None uses the preset's hub id.
            - dtype: data type in which the VAE computes, 'float32', 'bfloat16' or 'float16'. Latents are always float32.
            - stats: path of a cache's manifest with per-channel latent statistics, for presets that need them.
            - encode_batch_size: images per call of the VAE; None encodes the whole batch at once.
        load_vae: False trains from a cache without the VAE's weights; encoding and decoding then fail.
        posterior: How training turns the posterior into a latent: 'sample', 'mode' or 'auto' (also None), which draws a
            sample from cached moments (as in the paper) and takes the mode for images (as the official code does online).
            Evaluation always takes the mode. The noise of a sample depends on (seed, epoch, sample).
        mean, std: Mean and standard deviation that images in [0, 255] are normalised with before the VAE (ablated in
            Table 11).
        to_rgb: Whether to convert images from BGR (mmcv's loading order) to RGB.
        num_classes: Number of classes in one-hot scores; needed with `batch_augments`.
        batch_augments: Arguments of mmpretrain's RandomBatchAugment (mixup, cutmix).
        mix_space: 'latent' mixes after the VAE (official), 'image' before it.
        noise: dict(alpha_bar=x) diffuses every latent to that level, dict(timestep=t) by t of DDPM's 1000 linear steps
            (0: clean), in training and evaluation (robustness runs, appendix A). None adds no noise.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'vae': build_preset, 'noise': _alpha_bar, 'batch_augments': RandomBatchAugment}

    def __init__(
        self,
        vae: str | dict = DEFAULT,
        load_vae: bool = True,
        posterior: str | None = 'auto',
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
        to_rgb: bool = True,
        num_classes: int | None = None,
        batch_augments: dict | None = None,
        mix_space: str = 'latent',
        noise: dict | None = None,
    ) -> None:
        super().__init__(num_classes=num_classes, batch_augments=batch_augments)
        _check_choice('posterior', posterior, ('auto', 'mode', 'sample', None))
        _check_choice('mix_space', mix_space, ('latent', 'image'))
        self.register_buffer('mean', torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor(std, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        self.bgr_to_rgb, self.posterior, self.mix_space = to_rgb, posterior or 'auto', mix_space
        self.set_noise(noise)
        self._non_blocking = True  # of `cast_data`
        self.pass_on()
        self.codec = build_codec(vae_settings(vae), load_weights=load_vae)

    #: Further inputs of a generator with REPA: images for its teacher, or the teacher's tokens from a cache.
    TEACHER_KEYS = ('images', 'teacher_tokens')

    def set_noise(self, noise: dict | None) -> None:
        """Change the argument `noise` after construction."""
        self.alpha_bar = None if noise is None else _alpha_bar(**noise)

    def pass_on(self, *, keys: bool = False, labels: bool = False, images: bool = False) -> None:
        """Choose what `forward` returns in addition to latents and data samples. A model requests what its loss needs.

        Args:
            keys: In training, return the batch's `SampleKeys` as `keys`.
            labels: In training, return the classes int64[N] as `labels`.
            images: Return `images`, RGB in [0, 255], and `teacher_tokens`, each if the batch has them.
        """
        self._keys_too, self._labels_too, self._images_too = keys, labels, images

    def forward(self, data: dict, training: bool = False) -> dict:
        """Collated images, moments or latents [N, ., ., .] -> dict(inputs=float32 latents, data_samples).

        If the inputs are a dict, they are a request for samples from a generator and only move to the device. Entries that the
        model requested with `pass_on` are added. If the model requested keys, the labels in its data samples stay on their
        device, unless `batch_augments` mixes them.
        """
        data_samples = data.get('data_samples')
        if isinstance(data['inputs'], dict):
            return dict(inputs=self.cast_data(data['inputs']), data_samples=data_samples)
        inputs = self._cast_whole(data['inputs'])
        keys = functools.cache(lambda: sample_keys(data_samples, len(inputs), inputs.device, training))
        beside: dict[str, Any] = self._for_teacher(data, inputs) if self._images_too else {}
        if training and self._keys_too:
            beside['keys'] = keys()
        if training and self._labels_too and (labels := labels_of(data_samples, inputs.device)) is not None:
            beside['labels'] = labels
        return {**self._prepared(inputs, data_samples, training, keys), **beside}

    def _prepared(
        self, inputs: Tensor, data_samples: list | None, training: bool, keys: Callable[[], SampleKeys]
    ) -> dict[str, Any]:
        """dict(inputs, data_samples) with latents as inputs, and with label and score in data samples that a head reads."""
        if self.mix_space == 'image' and self.batch_augments is not None and training:
            if self.codec.kind_of(inputs) != 'image':
                raise ValueError(
                    f"mix_space='image' needs images, got {inputs.shape[1]}-channel cached latents: "
                    "use mix_space='latent' or a data set of images"
                )
            out = self._with_targets(self.normalize(inputs), data_samples, training)
            out['inputs'] = self._latents(out['inputs'], training, keys)
        else:
            out = self._with_targets(self._latents(self.normalize(inputs), training, keys), data_samples, training)
        if self.alpha_bar is not None:
            noise = keys().normal(tuple(out['inputs'].shape[1:]), 'latent_noise')
            out['inputs'] = diffuse(out['inputs'], self.alpha_bar, noise)
        return out

    def _with_targets(self, inputs: Tensor, data_samples: list | None, training: bool) -> dict[str, Any]:
        """Apply mmpretrain's augmentations and set labels and scores, with a single copy of the labels to the device."""
        if training and self._keys_too and self.batch_augments is None:
            return dict(inputs=inputs, data_samples=data_samples)
        samples = data_samples or []
        labels = [sample.get('gt_label') for sample in samples if isinstance(sample, DataSample)]
        if samples and len(labels) == len(samples) and all(label is not None and len(label) == 1 for label in labels):
            self._place_targets(samples, torch.cat(labels))
        out: dict[str, Any] = super().forward(dict(inputs=inputs, data_samples=data_samples), training)
        return out

    def _place_targets(self, samples: Sequence[DataSample], labels: Tensor) -> None:
        """Give each data sample its row of one tensor of labels and, if needed, of one tensor of one-hot scores."""
        num_classes = self.num_classes or samples[0].get('num_classes')
        on_device = to_device(labels, self.device)
        for sample, label in zip(samples, on_device.split(1), strict=True):
            sample.set_field(label, 'gt_label', dtype=Tensor)
        if not self.to_onehot or num_classes is None or 'gt_score' in samples[0]:
            return
        if labels.device.type == 'cpu' and (wrong := [n for n in labels.tolist() if not 0 <= n < num_classes]):
            raise ValueError(f'label {wrong[0]} is no class: num_classes={num_classes}, counted from 0')
        classes = torch.arange(num_classes, device=self.device)
        for sample, score in zip(samples, (on_device[:, None] == classes).long(), strict=True):
            sample.set_gt_score(score)

    def _cast_whole(self, inputs: Tensor | Sequence[Tensor]) -> Tensor:
        """One tensor on the device, in one copy."""
        return self.cast_data(inputs if isinstance(inputs, Tensor) else _stack(inputs))

    def _for_teacher(self, data: dict, inputs: Tensor) -> dict[str, Tensor]:
        kept = {key: self._cast_whole(data[key]) for key in self.TEACHER_KEYS if key in data}
        if self.codec.kind_of(inputs) == 'image':
            kept['images'] = inputs.flip(1) if self.bgr_to_rgb else inputs
        return kept

    def normalize(self, inputs: Tensor) -> Tensor:
        """Images in [0, 255] -> RGB in the VAE's range; moments and latents are returned unchanged."""
        if self.codec.kind_of(inputs) != 'image':
            return inputs
        if self.bgr_to_rgb:
            inputs = inputs.flip(1)
        return (inputs.float() - self.mean) / self.std

    @torch.no_grad()
    def _latents(self, inputs: Tensor, training: bool, keys: Callable[[], SampleKeys]) -> Tensor:
        codec = self.codec.to(inputs.device)
        kind = codec.kind_of(inputs)
        if kind == 'latents':
            return inputs.float()
        moments = codec.encode(inputs) if kind == 'image' else inputs.float()
        posterior = AUTO_POSTERIOR[kind] if self.posterior == 'auto' else self.posterior
        if posterior == 'mode' or not training:
            return codec.mode(moments)
        return codec.sample(moments, keys().normal((codec.channels, *moments.shape[2:]), 'posterior'))


def _check_choice(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        raise ValueError(f'{name}={value!r} must be one of {choices}')


def _stack(inputs: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(x.shape) for x in inputs}
    if len(shapes) > 1:
        raise ValueError(f'images of one batch differ in shape, {sorted(shapes)}: resize or crop them to one size')
    return torch.stack(tuple(inputs))
