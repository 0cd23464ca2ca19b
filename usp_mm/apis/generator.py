"""A trained generator that samples pictures of classes."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.config import ConfigDict
from PIL import Image

from usp_mm.models import LatentDiffusionGenerator
from usp_mm.models.guidance import Guidance
from usp_mm.registry import MODELS
from usp_mm.sampling.draw import sample_classes, sample_trajectory
from usp_mm.sampling.loaded import LoadedGenerator

from .diffusers_export import write_pipeline
from .numbers_in import check_counts, check_seed
from .pretrained_base import Pretrained

#: The lock of each model that has sampled: guidance, sampler and the type of the weights are set on the model for one call.
_TURNS: WeakKeyDictionary[LatentDiffusionGenerator, threading.Lock] = WeakKeyDictionary()


class Generator(Pretrained):
    """A `LatentDiffusionGenerator` for inference, made by `usp_mm.from_pretrained`; threads that share one take turns."""

    model: LatentDiffusionGenerator

    def sample(
        self,
        classes: int | str | Sequence[int | str],
        per_class: int = 1,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[Image.Image]:
        """Draw pictures, in the order of the requested classes.

        Args:
            classes: Numbers or names, or either with a count, as for `usp sample --classes`.
            per_class: Number of pictures for a class without a count.
            guidance: Scale of classifier-free guidance, 1 for none; by default the config's.
            steps: Number of sampling steps; by default the config's.
            seed: Seed of the noise; picture k of a class depends only on the seed, the class and k.
            batch_size: Number of pictures that are drawn at a time.

        Raises:
            ValueError: A class does not exist, a number is out of range, or the model or sampler does not have a setting.
        """
        _check_numbers(seed, steps, per_class=per_class, batch_size=batch_size)
        draw = dict(seed=seed, batch_size=batch_size)
        with self._settings(guidance, steps):
            rows = sample_classes(self._loaded(), _listed(classes), per_class, **draw)  # type: ignore[arg-type]
        return [Image.fromarray(picture) for row in rows for picture in row]

    def trajectory(
        self,
        classes: int | str | Sequence[int | str],
        per_class: int = 1,
        *,
        frames: int = 30,
        guidance: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[list[Image.Image]]:
        """Show how the pictures of `sample` arise: a list as from `sample` for each of at most `frames` states."""
        _check_numbers(seed, steps, per_class=per_class, frames=frames, batch_size=batch_size)
        draw = dict(num_frames=frames, seed=seed, batch_size=batch_size)
        with self._settings(guidance, steps):
            found = sample_trajectory(self._loaded(), _listed(classes), per_class, **draw)  # type: ignore[arg-type]
        return [[Image.fromarray(picture) for row in rows for picture in row] for rows in found]

    def save_pipeline(self, folder: str | Path, *, include_vae: bool = True) -> None:
        """Write a pipeline for diffusers, see `usp_mm.apis.diffusers_export.write_pipeline`; completely or not at all."""
        write_pipeline(Path(folder), self.model, self.source.classes, include_vae)

    def _loaded(self) -> LoadedGenerator:
        return LoadedGenerator(self.model, None, self.source.file, self.source.classes)

    @contextmanager
    def _settings(self, guidance: float | None, steps: int | None) -> Iterator[None]:
        """Use these settings in place of the config's within the context, which one thread at a time enters."""
        with _TURNS.setdefault(self.model, threading.Lock()):
            with self._replaced(guidance, steps):
                yield

    @contextmanager
    def _replaced(self, guidance: float | None, steps: int | None) -> Iterator[None]:
        model = self.model
        before: tuple[Guidance, Any] = model.guidance, model.sampler
        scale = before[0].scale if guidance is None else guidance
        chosen = Guidance(scale, before[0].channels, before[0].interval)
        if chosen.active and not model.denoiser.class_dropout:
            raise ValueError(f'guidance={guidance}: the generator was trained without a "no class" label, leave it out')
        sampler = before[1]
        if steps is not None:
            sampler = MODELS.build(ConfigDict({**self.source.cfg['model']['sampler'], 'num_steps': steps}))
            if 'num_steps' not in sampler.describe():
                raise ValueError(f'steps={steps}: the sampler chooses its own steps, {sampler.describe()}')
            sampler.check(model.objective)
        model.guidance, model.sampler = chosen, sampler
        try:
            yield
        finally:
            model.guidance, model.sampler = before


def _listed(classes: int | str | Sequence[int | str]) -> list[int | str]:
    return list(classes) if isinstance(classes, Iterable) and not isinstance(classes, str) else [classes]


def _check_numbers(seed: int, steps: int | None, **counts: int) -> None:
    check_seed(seed)
    check_counts(**counts, **({} if steps is None else dict(steps=steps)))
