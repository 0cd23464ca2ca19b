"""Patches of diffusers."""

import functools
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from usp_mm.renaming.placeholders import missing


def diffusers_without_transformers() -> None:
    """Add to `diffusers.pipelines` the one name that it lists but defines only where transformers is installed.

    Reason: `mmagic.models` reads every listed name, and `LDMSuperResolutionPipeline` then raises an AttributeError.
    Delete when: diffusers lists it with the other pipelines that need transformers.
    """
    wrapt.register_post_import_hook(_add_listed_pipeline, 'diffusers.pipelines.latent_diffusion')


def _add_listed_pipeline(module: ModuleType) -> None:
    lazy, name = sys.modules[module.__name__], 'LDMSuperResolutionPipeline'  # diffusers has replaced the module by `lazy`
    if name not in dir(lazy):
        setattr(lazy, name, missing(name, 'transformers is not installed: `pip install transformers`'))


#: Environment variable: 'off' leaves the DiT of diffusers unchanged.
DIFFUSERS_TIMES = 'USP_DIFFUSERS_TIMES'


def diffusers_dit_times() -> None:
    """Give diffusers' DiT the official DiT's time embedding, whose frequencies are 10000^(-k/128), and log this once.

    A network that is built while `USP_DIFFUSERS_TIMES=off` is set in the environment keeps the embedding of diffusers.

    Reason: diffusers computes 10000^(-k/127), so every DiT in its format, including facebook/DiT-XL-2-256, gets another time
    embedding than in training. Only DiT uses this embedder.
    Delete when: diffusers' `CombinedTimestepLabelEmbeddings` passes `downscale_freq_shift=0`.
    """
    wrapt.register_post_import_hook(_correct_dit_times, 'diffusers.models.embeddings')


def _correct_dit_times(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'CombinedTimestepLabelEmbeddings.__init__')
    def init(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        asked = os.environ.get(DIFFUSERS_TIMES, 'on')
        if asked not in ('on', 'off'):
            raise ValueError(f"{DIFFUSERS_TIMES}='{asked}' must be 'on' or 'off'")
        if asked == 'on' and instance.time_proj.downscale_freq_shift:
            instance.time_proj.downscale_freq_shift = 0
            _say_once(
                "usp_mm gives diffusers' DiT the time embedding that DiT was trained with, 10000^(-k/128) for 10000^(-k/127); "
                f'{DIFFUSERS_TIMES}=off leaves it as it is'
            )


@functools.cache
def _say_once(message: str) -> None:
    from mmengine.logging import MMLogger

    MMLogger.get_current_instance().info(message)
