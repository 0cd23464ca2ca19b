"""Lay out the demo: a tab for each thing that the given models can do."""

import gradio as gr

from .generate import by_classes, generate_tab
from .models import AppModels
from .neighbours import PictureFolder, neighbours_tab
from .recognise import classify_tab, segment_tab
from .restore import restore_tab

CSS = """
.fillable {max-width: 1280px !important; margin: 0 auto}
.result img {width: 100%; height: auto; object-fit: contain}
@media (max-width: 640px) {
    .fillable {padding: 8px 12px !important}
    .tab-container button {padding: 0 8px; font-size: 14px}
}
"""
#: Uploads and results older than this are deleted, in seconds; the demo looks as often.
_KEPT = 3600


def build_app(models: AppModels, pictures: PictureFolder | None = None) -> gr.Blocks:
    """Make the page of these models.

    Args:
        models: Result of `load_models`.
        pictures: Pictures among which neighbours are searched.

    Raises:
        ValueError: `pictures` are given without an encoder.
    """
    if pictures is not None and not models.encoders:
        raise ValueError('--pictures needs an encoder, whose features are compared: give the folder of one')
    with gr.Blocks(title='USP', analytics_enabled=False, fill_width=True, delete_cache=(_KEPT, _KEPT)) as page:
        gr.Markdown('# USP\nMasked restoration, generation and recognition on latents, with your models. Pictures stay on the '
                    'machine that runs `usp app`.')  # fmt: skip
        with gr.Tabs():
            if models.restorers:
                with gr.Tab('Restore'):
                    restore_tab(models.restorers)
            groups = by_classes(models.generators)
            for i, generators in enumerate(groups):
                with gr.Tab('Generate' if len(groups) == 1 else f'Generate {i + 1}'):
                    generate_tab(generators)
            if models.classifiers:
                with gr.Tab('Classify'):
                    classify_tab(models.classifiers)
            if models.segmentors:
                with gr.Tab('Segment'):
                    segment_tab(models.segmentors)
            if pictures is not None:
                with gr.Tab('Neighbours'):
                    neighbours_tab(models.encoders, pictures)
    return page
