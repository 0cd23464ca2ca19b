"""The tabs that name the class of a picture, and the class of every pixel."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import gradio as gr
from PIL import Image

from usp_mm.apis import Encoder

from .event_handlers import ONE_AT_A_TIME, in_turn
from .model_choice import choose_model
from .pictures import enlarged, read_upload, result_box, upload_box

if TYPE_CHECKING:  # importing it needs mmsegmentation
    from usp_mm.apis import Segmentor

TOPK = 5


def classify_picture(encoder: Encoder, path: str | None) -> dict[str, float]:
    """The best classes of an uploaded picture and their scores."""
    (best,) = encoder.classify(read_upload(path), topk=TOPK)
    names = [one['class'] or str(one['label']) for one in best]
    return {
        name if names.count(name) == 1 else f'{name} ({one["label"]})': one['score']
        for name, one in zip(names, best, strict=True)
    }


def segment_picture(segmentor: 'Segmentor', path: str | None) -> tuple[Image.Image, dict[str, float]]:
    """Colours of the classes over an uploaded picture, and the share of pixels of each class."""
    from usp_mm.apis.segmentation import segment_images

    with TemporaryDirectory() as folder:
        file = Path(folder, 'picture.png')
        read_upload(path).save(file)
        (found,) = segment_images(segmentor.inferencer, [file], Path(folder, 'out'))
        with Image.open(found['overlays']) as overlay:
            return enlarged(overlay.convert('RGB')), {one['class']: one['share'] for one in found['classes']}


def classify_tab(encoders: Mapping[str, Encoder]) -> None:
    """Lay out the tab inside the current `gr.Blocks`."""

    @in_turn
    def classify(model: str, path: str | None) -> dict[str, float] | None:
        return classify_picture(encoders[model], path) if path else None

    with gr.Row():
        with gr.Column(min_width=280):
            model, upload = choose_model(encoders), upload_box()
        with gr.Column(min_width=280):
            result = gr.Label(label='Best classes', num_top_classes=TOPK)
    gr.on([upload.change, model.input], classify, [model, upload], result, trigger_mode='always_last', **ONE_AT_A_TIME)


def segment_tab(segmentors: 'Mapping[str, Segmentor]') -> None:
    """Lay out the tab inside the current `gr.Blocks`."""

    @in_turn
    def segment(model: str, path: str | None) -> tuple[Image.Image, dict[str, float]] | tuple[None, None]:
        return segment_picture(segmentors[model], path) if path else (None, None)

    with gr.Row():
        with gr.Column(min_width=280):
            model, upload = choose_model(segmentors), upload_box()
        with gr.Column(min_width=280):
            result = result_box('Classes over the picture')
            shares = gr.Label(label='Shares of the pixels', num_top_classes=10)
    outputs = [result, shares]
    gr.on([upload.change, model.input], segment, [model, upload], outputs, trigger_mode='always_last', **ONE_AT_A_TIME)
