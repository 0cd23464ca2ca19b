"""The tab that finds the pictures of a folder that are nearest to an uploaded one."""

from collections.abc import Callable, Mapping
from pathlib import Path

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from usp_mm.apis import Encoder
from usp_mm.functional.knn import nearest
from usp_mm.images import find_images, load_image

from .event_handlers import ONE_AT_A_TIME, in_turn, whole_number
from .model_choice import choose_model
from .pictures import read_upload, upload_box

MAX_NEIGHBOURS = 24
_BATCH, _THUMBNAIL = 16, 256


class PictureFolder:
    """The pictures of a folder, and their features by model.

    Args:
        folder: The folder, searched at any depth.
        limit: Most pictures that are encoded, evenly spaced in the order of their paths.

    Raises:
        FileNotFoundError: The folder does not exist or holds no picture.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.paths = find_images([folder], limit)
        self.unreadable: set[Path] = set()
        self._features: dict[str, tuple[Tensor, list[Path]]] = {}

    def features(self, name: str, encoder: Encoder, on_progress: Callable[[float, str], object]) -> tuple[Tensor, list[Path]]:
        """Features float32[M, D] of the pictures that can be decoded, and their files; computed at the first call for a model.

        Args:
            name: Name of the model.
            encoder: The model.
            on_progress: Function that is called with the share done and a text.

        Raises:
            ValueError: No picture can be decoded.
        """
        if name not in self._features:
            parts, kept = [], []
            for start in range(0, len(self.paths), _BATCH):
                on_progress(start / len(self.paths), f'encoding picture {start + 1} of {len(self.paths)} in {self.folder.name}')
                readable = [(path, image) for path in self.paths[start : start + _BATCH] if (image := self._read(path))]
                if readable:
                    parts.append(encoder.encode([image for _, image in readable]))
                    kept += [path for path, _ in readable]
            if not kept:
                raise ValueError(f"none of the {len(self.paths)} pictures in '{self.folder.name}' can be decoded")
            self._features[name] = torch.cat(parts), kept
        return self._features[name]

    def _read(self, path: Path) -> Image.Image | None:
        try:
            return load_image(path)
        except (ValueError, OSError):
            self.unreadable.add(path)
            return None

    def summary(self) -> str:
        """What the folder holds, in one line."""
        left_out = f', {len(self.unreadable)} of them left out because they cannot be decoded' if self.unreadable else ''
        return f'{len(self.paths)} pictures of `{self.folder.name}` are compared{left_out}.'


def find_neighbours(
    pictures: PictureFolder,
    name: str,
    encoder: Encoder,
    path: str | None,
    k: float | None,
    on_progress: Callable[[float, str], object],
) -> list[tuple[Image.Image, str]]:
    """The k nearest pictures by the cosine similarity of their features, with file names and similarities."""
    number = whole_number(k, 'k', 1, MAX_NEIGHBOURS)
    query = encoder.encode(read_upload(path))
    bank, paths = pictures.features(name, encoder, on_progress)
    similarity, rows = nearest(query, bank, min(number, len(bank)))
    found = []
    for row, score in zip(rows[0].tolist(), similarity[0].tolist(), strict=True):
        image = load_image(paths[row])
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        found.append((image, f'{paths[row].relative_to(pictures.folder)} ({score:.3f})'))
    return found


def neighbours_tab(encoders: Mapping[str, Encoder], pictures: PictureFolder) -> None:
    """Lay out the tab inside the current `gr.Blocks`."""

    @in_turn
    def find(model: str, path: str | None, k: float | None, progress: gr.Progress = gr.Progress()) -> tuple[list, str]:  # noqa: B008
        if not path:
            return [], pictures.summary()
        on_progress = lambda share, text: progress(share, desc=text)  # noqa: E731
        return find_neighbours(pictures, model, encoders[model], path, k, on_progress), pictures.summary()

    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            model, upload = choose_model(encoders), upload_box()
            k = gr.Slider(1, MAX_NEIGHBOURS, 8, step=1, label='k', info='neighbours')
            summary = gr.Markdown(pictures.summary())
        with gr.Column(scale=3, min_width=320):
            gallery = gr.Gallery(label='Nearest pictures', columns=4, object_fit='contain', height='auto', interactive=False,
                                 buttons=['fullscreen'])  # fmt: skip
    outputs = [gallery, summary]
    gr.on(
        [upload.change, k.release, model.input], find, [model, upload, k], outputs, trigger_mode='always_last', **ONE_AT_A_TIME
    )
