"""Patches of MMEngine and mmpretrain, so that they know this package's configs and models by name.

They read `usp_mm/.mim`, where OpenMIM looks too: a wheel has copies of configs, tools and model index there, a checkout links.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import wrapt

from usp_mm.config.lookup import PREFIX, find_config

NAME = 'usp_mm'
FOLDER = Path(__file__).resolve().parents[1]
MIM = FOLDER / '.mim'


def configs_by_name() -> None:
    """Let MMEngine find configs as `usp_mm::sit/NAME.py`, in `_base_` and in `mmengine.hub`, and mmpretrain models as NAME.

    Reason: MMEngine knows packages by a fixed table, asks `pkg_resources` for their folder, which is wrong for an editable
    install, and takes the package's name for the scope of its types. mmpretrain lists only its own models; their index is read
    when one is asked for, since reading ours at import would slow every run.
    Delete when: MMEngine and mmpretrain take every installed package that has a folder `.mim`.
    """
    wrapt.register_post_import_hook(list_package, 'mmengine.config.utils')
    wrapt.register_post_import_hook(find_own_bases, 'mmengine.config.config')
    wrapt.register_post_import_hook(keep_own_scope, 'mmengine.hub.hub')
    wrapt.register_post_import_hook(list_models, 'mmpretrain.apis.model')


def list_package(module: Any) -> None:
    """Add the package to the table of `mmengine.config.utils`."""
    module.MODULE2PACKAGE.setdefault(NAME, NAME)


def find_own_bases(module: Any) -> None:
    """Let `_base_ = 'usp_mm::…'` mean a file of this package, which names its own scope as a base in the same folder does."""

    @wrapt.patch_function_wrapper(module, 'Config._get_cfg_path')
    def path_and_scope(wrapped: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        path = args[0] if args else kwargs['cfg_path']
        return (str(find_config(path)), None) if path.startswith(PREFIX) else wrapped(*args, **kwargs)


def keep_own_scope(module: Any) -> None:
    """Let `mmengine.hub` find this package's folder, and build a model in the scope that its config names."""

    @wrapt.patch_function_wrapper(module, 'get_installed_path')
    def installed_path(wrapped: Callable[..., str], instance: Any, args: tuple, kwargs: dict[str, Any]) -> str:
        return str(FOLDER) if (args[0] if args else kwargs['package']) == NAME else wrapped(*args, **kwargs)

    @wrapt.patch_function_wrapper(module, 'get_config')
    def config(wrapped: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        cfg = wrapped(*args, **kwargs)
        if (args[0] if args else kwargs['cfg_path']).startswith(PREFIX):
            _name_scope(cfg)
        return cfg


def list_models(module: Any) -> None:
    """Add the models of this package's index to `mmpretrain.apis.ModelHub` when it is first asked for one."""

    @wrapt.patch_function_wrapper(module, 'ModelHub._register_mmpretrain_models')
    def register(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        if not hasattr(module.ModelHub, 'with_usp_mm'):
            module.ModelHub.with_usp_mm = True
            _register_index(module.ModelHub)

    @wrapt.patch_function_wrapper(module, 'ModelHub.get')
    def get(wrapped: Callable[..., Any], instance: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        found = wrapped(*args, **kwargs)
        if Path(str(found.config.filename)).is_relative_to(MIM):
            _name_scope(found.config)  # mmpretrain would look for mmseg's types in its own registry
        return found


def _register_index(hub: Any) -> None:
    listed = {Path(model.config).resolve() for model in hub._models_dict.values() if isinstance(model.config, str)}
    if not any(path.is_relative_to((MIM / 'configs').resolve()) for path in listed):  # the user may have registered it
        hub.register_model_index(MIM / 'model-index.yml', config_prefix=MIM)


def _name_scope(cfg: Any) -> None:
    if 'model' in cfg:
        cfg.model.setdefault('_scope_', cfg.get('default_scope', 'mmengine'))
