"""Event handlers of the demo: functions behind the buttons, called one at a time, with errors shown as messages."""

import functools
import html
import threading
from collections.abc import Callable
from tempfile import NamedTemporaryFile
from typing import Any, ParamSpec

import gradio as gr
from mmengine.logging import MMLogger
from PIL import Image

_P = ParamSpec('_P')
_MODELS = threading.Lock()
#: Of every event that uses a model: Gradio calls one at a time, the others wait in its queue.
ONE_AT_A_TIME: dict[str, Any] = dict(concurrency_limit=1, concurrency_id='models', api_visibility='private')


def in_turn(function: Callable[_P, Any]) -> Callable[_P, Any]:
    """Let a function hold the models' lock, return its pictures as files, and raise its errors as `gr.Error` with one line.

    An error that is not the user's is logged with its traceback; the page shows only its type.
    """

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Any:
        try:
            with _MODELS:
                return as_files(function(*args, **kwargs))
        except gr.Error:
            raise
        except (ValueError, OSError) as error:
            line = str(error)
        except Exception as error:
            MMLogger.get_current_instance().exception('the demo could not answer')
            line = f'this did not work ({type(error).__name__}): the terminal of `usp app` shows where'
        raise gr.Error(html.escape(line, quote=False), print_exception=False)

    return call


def as_files(found: Any) -> Any:
    """Replace pictures, also those in lists and tuples, by PNG files of their own.

    Gradio would name a file by its content and write it anew for each user, so that one may read it half written.
    """
    if isinstance(found, list | tuple):
        return type(found)(as_files(one) for one in found)
    if not isinstance(found, Image.Image):
        return found
    with NamedTemporaryFile(suffix='.png', delete=False) as file:
        found.save(file, format='PNG')
    return file.name


def in_use() -> bool:
    """Whether a model is at work for somebody."""
    return _MODELS.locked()


def whole_number(value: float | None, name: str, least: int, most: int) -> int:
    """A number field's value as an int.

    Raises:
        ValueError: The field is empty, or the value is not a whole number in the range.
    """
    if value is None or value != int(value) or not least <= value <= most:
        raise ValueError(f'{name}={value} must be a whole number from {least} to {most}')
    return int(value)


def seed_number(value: float | None) -> int:
    """A seed field's value; the largest is the largest whole number that a browser represents exactly."""
    return whole_number(value, 'seed', 0, 2**53 - 1)
