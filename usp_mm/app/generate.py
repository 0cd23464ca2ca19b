"""The tab that generates pictures of classes, from several generators side by side."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from mmpretrain.datasets.categories import IMAGENET_CATEGORIES
from PIL import Image

from usp_mm.apis import Generator
from usp_mm.datasets.class_names import are_wordnet_ids, class_name
from usp_mm.sampling.pictures import draw_grid, write_animation

from .event_handlers import ONE_AT_A_TIME, in_turn, seed_number, whole_number
from .pictures import enlarged, result_box

#: Limits of one request.
MAX_CLASSES, MAX_PER_CLASS, MAX_STEPS = 8, 8, 250
_FRAMES = 16


class Request(NamedTuple):
    """The fields of the tab: values of `Generator.sample`, and whether the animation is wanted."""

    classes: Sequence[int]
    per_class: float | None
    guidance: float | None
    steps: float | None
    seed: float | None
    trajectory: bool = False


def generate_pictures(generator: Generator, request: Request) -> tuple[list[tuple[Image.Image, str]], str | None]:
    """Draw what is asked for.

    Returns:
        The pictures with the names of their classes, and the file of the animation if it was asked for.

    Raises:
        ValueError: There is no class, a setting is out of range, or the generator does not have it.
    """
    if not request.classes:
        raise ValueError('no classes: choose at least one')
    if len(request.classes) > MAX_CLASSES:
        raise ValueError(f'{len(request.classes)} classes are chosen: the demo draws up to {MAX_CLASSES} at a time')
    per_class = whole_number(request.per_class, 'per_class', 1, MAX_PER_CLASS)
    settings: dict[str, Any] = dict(
        guidance=request.guidance, seed=seed_number(request.seed),
        steps=None if request.steps is None else whole_number(request.steps, 'steps', 1, MAX_STEPS),
    )  # fmt: skip
    file = None
    if request.trajectory:
        frames = generator.trajectory(list(request.classes), per_class, frames=_FRAMES, **settings)
        file, pictures = _animation(frames, per_class), frames[-1]
    else:
        pictures = generator.sample(list(request.classes), per_class, **settings)
    names = [name for name, _ in class_choices(generator)]
    captions = [names[label] for label in request.classes for _ in range(per_class)]
    return [(enlarged(one), caption) for one, caption in zip(pictures, captions, strict=True)], file


def _animation(frames: Sequence[Sequence[Image.Image]], per_class: int) -> str:
    """Write frames as an animated grid, one row a class, to a file in the demo's private folder."""
    grids = []
    for frame in frames:
        cells = np.stack([np.asarray(one) for one in frame])
        grids.append(np.asarray(enlarged(Image.fromarray(draw_grid(np.split(cells, len(cells) // per_class))))))
    with NamedTemporaryFile(suffix='.gif', delete=False) as file:
        write_animation(Path(file.name), grids)
    return file.name


def class_choices(generator: Generator) -> list[tuple[str, int]]:
    """Names that differ, and labels, of a generator's classes."""
    number, names = generator.model.denoiser.num_classes, generator.classes
    if number == len(IMAGENET_CATEGORIES) and (not names or are_wordnet_ids(names)):
        names = tuple(name.split(',')[0] for name in IMAGENET_CATEGORIES)
    shown = [class_name(names, label) or str(label) for label in range(number)]
    return [(name if shown.count(name) == 1 else f'{name} ({label})', label) for label, name in enumerate(shown)]


def by_classes(generators: Mapping[str, Generator]) -> list[dict[str, Generator]]:
    """Groups of generators of the same classes, which can be compared."""
    groups: dict[tuple, dict[str, Generator]] = {}
    for name, one in generators.items():
        groups.setdefault(tuple(class_choices(one)), {})[name] = one
    return list(groups.values())


def generate_tab(generators: Mapping[str, Generator]) -> None:
    """Lay out the tab for generators of the same classes inside the current `gr.Blocks`."""

    @in_turn
    def generate(*fields: Any) -> list:
        found = [generate_pictures(one, Request(*fields)) for one in generators.values()]
        return [part for pictures, file in found for part in (pictures, gr.Image(value=file, visible=file is not None))]

    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            fields = _fields(list(generators.values()))
            button = gr.Button('Generate', variant='primary')
        with gr.Column(scale=3, min_width=320), gr.Row():
            results: list[gr.components.Component] = []
            for name in generators:
                with gr.Column(min_width=300):
                    results.append(gr.Gallery(label=name, columns=4, object_fit='contain', height='auto', format='png',
                                              interactive=False, buttons=['download', 'fullscreen']))  # fmt: skip
                    results.append(result_box(f'{name}: from noise to picture', visible=False))
    button.click(generate, fields, results, trigger_mode='once', **ONE_AT_A_TIME)


def _fields(generators: Sequence[Generator]) -> list[gr.components.Component]:
    """One field for each of `Request`; guidance and steps only if all of the generators have them."""
    choices = class_choices(generators[0])
    guided = all(one.model.denoiser.class_dropout for one in generators)
    steps = [one.model.sampler.describe().get('num_steps') for one in generators]
    stepped = None not in steps
    return [
        gr.Dropdown(choices, value=[0], multiselect=True, max_choices=MAX_CLASSES, label='classes'),
        gr.Slider(1, MAX_PER_CLASS, min(4, MAX_PER_CLASS), step=1, label='per_class', info='pictures of each class'),
        gr.Slider(1, 10, generators[0].model.guidance.scale, step=0.1, label='guidance', info='1 is none', visible=True)
        if guided else gr.State(None),
        gr.Slider(1, MAX_STEPS, steps[0], step=1, label='steps', info='of the sampler') if stepped else gr.State(None),
        gr.Number(0, label='seed', precision=0, minimum=0),
        gr.Checkbox(False, label='trajectory', info='show how the pictures arise'),
    ]  # fmt: skip
