"""Older names of modules that were renamed: they can still be imported, with a warning, until the next release."""

import functools
import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from usp_mm.placeholders import placeholder

#: Older name -> current name. The submodules of a package moved with it.
MOVED = {
    'usp_mm.apis.background': 'usp_mm.sampling.background',
    'usp_mm.apis.class_request': 'usp_mm.sampling.class_request',
    'usp_mm.apis.complexity': 'usp_mm.analysis.complexity',
    'usp_mm.apis.convergence': 'usp_mm.analysis.convergence',
    'usp_mm.apis.cost': 'usp_mm.analysis.cost',
    'usp_mm.apis.features': 'usp_mm.probing.features',
    'usp_mm.apis.knn': 'usp_mm.probing.knn_probe',
    'usp_mm.apis.likelihood': 'usp_mm.analysis.likelihood',
    'usp_mm.apis.origin': 'usp_mm.sampling.loaded',
    'usp_mm.apis.pictures': 'usp_mm.sampling.pictures',
    'usp_mm.apis.probe_arguments': 'usp_mm.probing.arguments',
    'usp_mm.apis.probe_data': 'usp_mm.probing.data',
    'usp_mm.apis.probe_layers': 'usp_mm.probing.layer_probe',
    'usp_mm.apis.probe_report': 'usp_mm.probing.report',
    'usp_mm.apis.robustness': 'usp_mm.analysis.noise_levels',
    'usp_mm.apis.run_log': 'usp_mm.analysis.run_log',
    'usp_mm.apis.sample_file': 'usp_mm.sampling.file',
    'usp_mm.apis.sample_parts': 'usp_mm.sampling.parts',
    'usp_mm.apis.sample_plan': 'usp_mm.sampling.plan',
    'usp_mm.apis.sampling': 'usp_mm.sampling.draw',
    'usp_mm.engine.cfg_action': 'usp_mm.arguments',
    'usp_mm.engine.class_check': 'usp_mm.engine.checks.classes',
    'usp_mm.engine.config_check': 'usp_mm.engine.checks.config',
    'usp_mm.engine.generator_check': 'usp_mm.engine.checks.generator',
    'usp_mm.engine.noise': 'usp_mm.analysis.noise',
    'usp_mm.engine.save_best': 'usp_mm.engine.checks.save_best',
    'usp_mm.models.restoration': 'usp_mm.models.restoration_picture',
}

#: Older name -> current name of modules whose older name is a function's now. Python's import would hide that function behind
#: the module, as a package's attribute, so a placeholder stands for the module.
NOW_FUNCTIONS = {'usp_mm.checkpoints.convert': 'usp_mm.checkpoints.conversion'}


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook that returns the module of the current name for an older name."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if _name_now(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = _name_now(spec.name)
        assert now is not None
        warnings.warn(f'{spec.name} is now {now}: the older name goes in the next release', FutureWarning, stacklevel=2)
        module = importlib.import_module(now)
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Only restore the module's own `__spec__`: its code ran when it was imported under its current name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def _name_now(name: str) -> str | None:
    if not name.startswith('usp_mm.'):
        return None
    for older, now in MOVED.items():
        if name == older or name.startswith(f'{older}.'):
            return now + name[len(older) :]
    return None


def _content_of(older: str, now: str, name: str) -> Any:
    found = getattr(importlib.import_module(now), name)
    warnings.warn(f'{older} is now {now}: the older name goes in the next release', FutureWarning, stacklevel=3)
    return found


def find_moved_modules() -> None:
    """Install the import hook for `MOVED`, in first place: other finders would load a moved package's submodules twice."""
    for older, now in NOW_FUNCTIONS.items():
        placeholder(older, functools.partial(_content_of, older, now))
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())
