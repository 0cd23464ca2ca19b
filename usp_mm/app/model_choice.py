"""The field that chooses one of several models."""

from collections.abc import Mapping
from typing import Any

import gradio as gr


def choose_model(models: Mapping[str, Any]) -> gr.Dropdown:
    """A field with the models' names, which shows itself if there are several."""
    names = list(models)
    return gr.Dropdown(names, value=names[0], label='model', visible=len(names) > 1, filterable=False)
