"""Load a trained generator and draw samples of requested classes.

Shape legend: N samples, n pictures of a class, C×h×w latent, H×W pixels.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from torch import Tensor
from tqdm import tqdm

from usp_mm.datasets.latent_cache.shard_filling import OnHost
from usp_mm.engine.starting.loading import class_names, load_config, load_trained
from usp_mm.fileio.strict_loading import ITS_CONFIG
from usp_mm.fileio.weights import read_trained
from usp_mm.models import LatentDiffusionGenerator
from usp_mm.models.generator import check_finite_samples, finite_samples
from usp_mm.models.samplers import Sampler
from usp_mm.models.samplers.base import OnStep
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import weights_name

from .class_request import ClassRequest, parse_classes
from .loaded import LoadedGenerator, as_loaded


def load_generator(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
    sample_model: str | None = None,
) -> LoadedGenerator:
    """Build the generator of a config and load a checkpoint's weights strictly.

    The result also has the config, the checkpoint's path, and the class names from the checkpoint, or else from the config's
    validation data set (None if neither has them).

    Args:
        config: Config, as `usp_mm.engine.starting.loading.load_config` takes it.
        checkpoint: Checkpoint of `usp train`, a file or a URL.
        device: Device of the model; by default the GPU if there is one, else the CPU.
        cfg_options: Settings to override, such as {'model.sampler.num_steps': 50}.
        sample_model: Weights to sample with, 'ema' or 'model'; None for the config's choice. With 'model', averaged weights
            are not loaded.

    Raises:
        FileNotFoundError: The config or checkpoint does not exist.
        ValueError: The config is of another stage or has an unknown key, or the checkpoint is of another model or VAE or has no
            averaged weights.
    """
    cfg = load_config(config, cfg_options, initialises=False, evaluates=False)
    return build_generator(cfg, checkpoint, device, sample_model)


def build_generator(
    cfg: Config, checkpoint: str | Path, device: str | None = None, sample_model: str | None = None
) -> LoadedGenerator:
    """Like `load_generator`, for a config that `load_config` has checked; the config is changed to one for sampling."""
    if 'denoiser' not in cfg.model:
        raise ValueError(f"sampling needs the config of a generator, this one has model.type '{cfg.model.type}'")
    if sample_model is not None:
        cfg.model.sample_model = sample_model
    if 'sample_model' in cfg.model:
        cfg.model.sample_model = weights_name(cfg.model.sample_model)
    if cfg.model.get('data_preprocessor'):  # training from cached latents leaves out the VAE's weights
        cfg.model.data_preprocessor.load_vae = True
    trained = read_trained(checkpoint)
    weights = trained.weights
    if cfg.model.get('sample_model', 'ema') == 'model':
        cfg.model.ema = None
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith('denoiser_ema.')}
    elif 'denoiser' in (parts := {name.split('.')[0] for name in weights}) and 'denoiser_ema' not in parts:
        raise ValueError(
            f"'{checkpoint}' has no averaged (EMA) weights: sample the trained ones with --weights model (sample_model='model')"
        )
    if cfg.model.get('repa'):  # teacher and projector are used in training only
        cfg.model.repa = None
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith('repa.')}
    model = MODELS.build(cfg.model)
    load_trained(model, trained, cfg, weights)
    names = class_names(trained, cfg)
    _check_trained_classes(names, model.denoiser.num_classes, trained.path)
    return LoadedGenerator(model.to(device or get_device()).eval(), cfg, trained.path, names)


def sample_classes(
    model: LoadedGenerator | LatentDiffusionGenerator,
    classes: Sequence[int | str],
    per_class: int = 4,
    *,
    seed: int = 0,
    batch_size: int = 16,
    sample_model: str | None = None,
) -> list[np.ndarray]:
    """Draw pictures of the requested classes.

    Picture k of class c depends only on (seed, c, k). With K classes it is sample k·K + c, the same as with label mode
    'balanced'. A sampler that chooses its steps for a whole batch draws one picture at a time.

    Args:
        model: Result of `load_generator`, or any generator, whose classes then have numbers only.
        classes: Numbers or names, or either with a count: [207, 'golden retriever', '88:2'].
        per_class: Number of pictures for a class without a count.
        seed: Seed of the noise.
        batch_size: Number of samples that are drawn at a time.
        sample_model: Weights to sample with, 'ema' or 'model'; None for the model's own choice.

    Returns:
        One array uint8[n, H, W, 3] (RGB) for each entry of `classes`.

    Raises:
        ValueError: A class does not exist.
    """
    requests = requested_classes(model, classes, per_class)
    return _sample_frames(as_loaded(model).model, requests, 1, batch_size, seed=seed, sample_model=sample_model)[0]


def sample_trajectory(
    model: LoadedGenerator | LatentDiffusionGenerator,
    classes: Sequence[int | str],
    per_class: int = 4,
    *,
    num_frames: int = 30,
    seed: int = 0,
    batch_size: int = 16,
    sample_model: str | None = None,
) -> list[list[np.ndarray]]:
    """Show how the pictures of `sample_classes` arise: decoded states at equal distances, with the final pictures last.

    Args:
        num_frames: Maximum number of frames; there are fewer if the sampler takes fewer steps. The other arguments are those of
            `sample_classes`.

    Returns:
        For each frame, a list as `sample_classes` returns it.
    """
    if num_frames < 2:
        raise ValueError(f'num_frames={num_frames} must be 2 or more')
    requests = requested_classes(model, classes, per_class)
    return _sample_frames(as_loaded(model).model, requests, num_frames, batch_size, seed=seed, sample_model=sample_model)


def requested_classes(
    model: LoadedGenerator | LatentDiffusionGenerator, classes: Sequence[int | str], per_class: int
) -> list[ClassRequest]:
    """Parse `classes` for this generator; see `parse_classes`."""
    loaded = as_loaded(model)
    return parse_classes(classes, loaded.model.denoiser.num_classes, loaded.classes, per_class)


class DrawnImages:
    """A batch of samples that the device may still be drawing, so that the next batch can be launched meanwhile.

    Args:
        model: The generator. Unless its sampler chooses its own steps, nothing here waits for a GPU.
        index: Sample numbers, int64[N], on the CPU.
        label: Classes, int64[N], on the CPU.
        on_step: Function that is called with (step, latents) after each step.
        seed, sample_model: As in `sample_classes`.
    """

    def __init__(
        self,
        model: LatentDiffusionGenerator,
        index: Tensor,
        label: Tensor,
        on_step: OnStep | None = None,
        *,
        seed: int,
        sample_model: str | None,
    ) -> None:
        self.index, self.label = index, label

        def draw() -> list[Tensor]:
            latents = model.sample_latents(index, label, seed=seed, sample_model=sample_model, on_step=on_step)
            return [model.decode(latents).permute(0, 2, 3, 1).contiguous(), finite_samples(latents)]

        self._host = OnHost(next(model.parameters()).device, draw)

    def wait(self) -> np.ndarray:
        """The images once they are there, uint8[N, H, W, 3], RGB. Any thread may call this.

        Raises:
            ValueError: A latent is not finite.
        """
        self._host.wait()
        images, finite = self._host.tensors
        check_finite_samples(finite, self.index, self.label)
        return images.numpy()


class ShownSteps:
    """An `on_step` callback that shows the sampler's latest step behind a progress bar of samples.

    The bar alone rarely moves when a batch takes many steps.

    Args:
        bar: Progress bar of samples.
        num: Number of steps per batch.
    """

    interval = 0.5  # seconds

    def __init__(self, bar: tqdm, num: int) -> None:
        self.bar, self.num, self.next = bar, num, 0.0

    @classmethod
    def of(cls, bar: tqdm, sampler: Sampler) -> 'ShownSteps | None':
        """Return None for a sampler that chooses its own steps, which would store states for this callback."""
        return None if sampler.num_updates is None else cls(bar, sampler.num_updates)

    def __call__(self, step: int, state: Tensor) -> None:
        """Show the step, at most once per interval."""
        if time.monotonic() >= self.next:
            self.bar.set_postfix_str(f'step {step + 1} of {self.num}')
            self.next = time.monotonic() + self.interval


class StateKeeper:
    """An `on_step` callback that keeps evenly spaced states, except the last, of a run of unknown length.

    Args:
        num: Number of states to keep in the end; up to twice as many are held in between.
    """

    def __init__(self, num: int) -> None:
        self.num, self.every = num, 1
        self.states: list[Tensor] = []
        self.latest: tuple[int, Tensor] | None = None

    def __call__(self, step: int, state: Tensor) -> None:
        """Remember this state, and keep the one before it if its turn has come: only now is it known not to be the last."""
        if self.latest is not None and self.latest[0] % self.every == 0:
            self.states.append(self.latest[1].cpu())
            if len(self.states) == 2 * self.num:
                self.states = self.states[::2]
                self.every *= 2
        self.latest = step, state.clone()

    def chosen(self) -> list[Tensor]:
        """At most `num` states, beginning with the first."""
        picks = np.linspace(0, len(self.states) - 1, min(self.num, len(self.states))).round().astype(int)
        return [self.states[i] for i in picks]


def _sample_frames(
    model: LatentDiffusionGenerator,
    requests: list[ClassRequest],
    num_frames: int,
    batch_size: int,
    *,
    seed: int,
    sample_model: str | None,
) -> list[list[np.ndarray]]:
    """Draw at most `num_frames` frames, each with one array per request; the last frame holds the samples."""
    index, label = _numbers(requests, model.denoiser.num_classes)
    batches: list[tuple[list[np.ndarray], DrawnImages]] = []
    batch_size = batch_size if model.sampler.batch_invariant else 1
    bar = tqdm(total=len(index), desc='sampling', unit='img', leave=False)
    with bar as progress, model.sampling_weights(sample_model):
        shown = ShownSteps.of(progress, model.sampler)
        for numbers, labels in zip(index.split(batch_size), label.split(batch_size), strict=True):
            keeper = StateKeeper(num_frames - 1) if num_frames > 1 else None
            watchers = [watcher for watcher in (keeper, shown) if watcher is not None]
            on_step = _all_of(watchers) if watchers else None
            images = DrawnImages(model, numbers, labels, on_step, seed=seed, sample_model=sample_model)
            batches.append(([_pixels(model, state) for state in (keeper.chosen() if keeper else ())], images))
            progress.update(len(numbers))
    ends = np.cumsum([request.count for request in requests])[:-1]
    frames = zip(*([*states, images.wait()] for states, images in batches), strict=True)
    return [np.split(np.concatenate(parts), ends) for parts in frames]


def _all_of(watchers: Sequence[OnStep]) -> OnStep:
    def on_step(step: int, state: Tensor) -> None:
        for watcher in watchers:
            watcher(step, state)

    return on_step


def _numbers(requests: list[ClassRequest], num_classes: int) -> tuple[Tensor, Tensor]:
    """Sample number and class of every picture, int64[N] each; a repeated class continues its numbering."""
    drawn: Counter[int] = Counter()
    pairs = []
    for request in requests:
        for _ in range(request.count):
            pairs.append((drawn[request.label] * num_classes + request.label, request.label))
            drawn[request.label] += 1
    index, label = torch.tensor(pairs, dtype=torch.int64).unbind(1)
    return index, label


def _pixels(model: LatentDiffusionGenerator, latents: Tensor) -> np.ndarray:
    device = next(model.parameters()).device
    return model.decode(latents.to(device)).permute(0, 2, 3, 1).cpu().numpy()


def _check_trained_classes(names: Sequence[str] | None, number: int, checkpoint: Path) -> None:
    """Warn of classes without training images; raise ValueError if the model has fewer classes than the checkpoint names."""
    if names and len(names) > number:
        raise ValueError(f"'{checkpoint}' names {len(names)} classes, model.denoiser.num_classes is {number}: {ITS_CONFIG}")
    if names and len(names) < number:
        MMLogger.get_current_instance().warning(
            f"'{checkpoint}' was trained on {len(names)} classes, model.denoiser.num_classes is {number}: samples of classes "
            f'{len(names)} to {number - 1} are of classes that it never saw'
        )
