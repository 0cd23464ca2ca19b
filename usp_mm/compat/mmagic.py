"""Patches of mmcv, numpy and diffusers that mmagic and mmseg need to be imported."""

import functools
import importlib
import importlib.util
from typing import Any

import wrapt

from usp_mm.renaming.placeholders import exists, missing, placeholder


def mmcv_ext() -> None:
    """Stand in for `mmcv._ext`, mmcv's compiled operators, where they aren't installed.

    Reason: mmseg and mmagic import all of `mmcv.ops`, mmcv-lite carries none, and this package needs none.
    `mmengine.utils.dl_utils.mmcv_full_available()` still answers False, since the stand-in has no loader.
    Delete when: mmseg and mmagic import with mmcv-lite.
    """
    if not exists('mmcv._ext'):
        fix = (
            'the compiled operators of mmcv are not installed: mmcv-lite has none. Install full mmcv in its place: '
            '`pip uninstall mmcv-lite` and `MMCV_WITH_OPS=1 pip install --no-build-isolation mmcv==2.1.0`'
        )
        placeholder('mmcv._ext', functools.partial(missing, fix=fix))


def numpy_bool8() -> None:
    """Give numpy 2 the name `bool8`.

    Reason: `mmagic.utils.trans_utils` names it, numpy 2.0 removed it.
    Delete when: mmagic no longer names it.
    """
    wrapt.register_post_import_hook(_add_bool8, 'numpy')


def _add_bool8(module: Any) -> None:
    if not hasattr(module, 'bool8'):
        module.bool8 = module.bool_


#: Modules of diffusers under the names by which mmagic imports them -> their newer names (the second since 0.38).
DIFFUSERS_MOVED = {
    'diffusers.models.unet_2d_condition': 'diffusers.models.unets.unet_2d_condition',
    'diffusers.pipelines.paint_by_example': 'diffusers.pipelines.deprecated.paint_by_example',
}


def diffusers_moved() -> None:
    """Let the older names of modules of diffusers mean the newer ones, where the older ones are gone.

    Reason: mmagic imports from the old paths, diffusers moved them.
    Delete when: mmagic imports from the new paths.
    """
    for old, new in DIFFUSERS_MOVED.items():
        if not exists(old):
            placeholder(old, functools.partial(_moved_name, new))


def _moved_name(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


#: Modules of mmagic that fail to import without packages that nothing here calls, and those packages.
MMAGIC_OPTIONAL = {
    'apis.inferencers.controlnet_animation_inferencer': ('controlnet-aux',),
    'datasets.transforms.albu_function': ('albumentations',),
    'evaluation.metrics.ppl': ('lpips',),
    'models.editors.animatediff.animatediff_utils': ('transformers',),
    'models.editors.disco_diffusion.guider': ('lpips', 'pandas', 'resize-right'),
    'models.editors.fastcomposer.fastcomposer': ('transformers',),
}


def mmagic_optional_packages() -> None:
    """Stand in for modules of mmagic whose own requirements are not all installed.

    Reason: `mmagic.models`, `mmagic.evaluation` and `mmagic.apis` import them unconditionally, and with them large packages.
    The packages themselves get no stand-in, since others try them: MMEngine transformers, sklearn pandas.
    Delete when: mmagic imports them conditionally, as it does av, face_alignment and most of albumentations.
    """
    for module, packages in MMAGIC_OPTIONAL.items():
        absent = [package for package in packages if importlib.util.find_spec(package.replace('-', '_')) is None]
        if absent:
            verb = 'is' if len(absent) == 1 else 'are'
            fix = f'{" and ".join(absent)} {verb} not installed: `pip install {" ".join(absent)}`'
            placeholder(f'mmagic.{module}', functools.partial(missing, fix=fix))
