"""Older names of modules that were renamed: they can still be imported, with a warning, until the next release."""

import functools
import importlib
import importlib.abc
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any, cast

from usp_mm.renaming.placeholders import placeholder

#: Older name -> current name. The submodules of a package moved with it.
MOVED = {
    'usp_mm.addresses': 'usp_mm.fileio.addresses',
    'usp_mm.apis.background': 'usp_mm.sampling.background',
    'usp_mm.apis.class_request': 'usp_mm.sampling.class_request',
    'usp_mm.apis.complexity': 'usp_mm.analysis.complexity',
    'usp_mm.apis.convergence': 'usp_mm.analysis.convergence',
    'usp_mm.apis.cost': 'usp_mm.analysis.cost',
    'usp_mm.apis.features': 'usp_mm.probing.features',
    'usp_mm.apis.final_folder': 'usp_mm.apis.end_of_training',
    'usp_mm.apis.folder': 'usp_mm.apis.model_folder',
    'usp_mm.apis.folder_files': 'usp_mm.apis.folder_argument',
    'usp_mm.apis.hub': 'usp_mm.apis.pretrained_base',
    'usp_mm.apis.knn': 'usp_mm.probing.knn_probe',
    'usp_mm.apis.likelihood': 'usp_mm.analysis.likelihood',
    'usp_mm.apis.origin': 'usp_mm.sampling.loaded',
    'usp_mm.apis.pictures': 'usp_mm.sampling.pictures',
    'usp_mm.apis.pipeline': 'usp_mm.apis.diffusers_export',
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
    'usp_mm.app.choice': 'usp_mm.app.model_choice',
    'usp_mm.app.turns': 'usp_mm.app.event_handlers',
    'usp_mm.arguments': 'usp_mm.config.arguments',
    'usp_mm.batches': 'usp_mm.config.data_loaders',
    'usp_mm.cfg_values': 'usp_mm.config.values',
    'usp_mm.checkpoints.entries': 'usp_mm.checkpoints.conversion_data',
    'usp_mm.checkpoints.fold': 'usp_mm.checkpoints.norm_folding',
    'usp_mm.checkpoints.official': 'usp_mm.checkpoints.official_names',
    'usp_mm.checkpoints.sit_pipeline': 'usp_mm.checkpoints.diffusers_sit',
    'usp_mm.checksums': 'usp_mm.fileio.checksums',
    'usp_mm.command': 'usp_mm.runtime.command',
    'usp_mm.config_files': 'usp_mm.config.lookup',
    'usp_mm.console': 'usp_mm.runtime.console',
    'usp_mm.datasets.latent_cache.pipeline': 'usp_mm.datasets.latent_cache.shard_filling',
    'usp_mm.datasets.rank0': 'usp_mm.datasets.main_process',
    'usp_mm.datasets.requests': 'usp_mm.datasets.sample_requests',
    'usp_mm.datasets.wrappers': 'usp_mm.datasets.dataset_wrappers',
    'usp_mm.engine.accumulation': 'usp_mm.engine.optim.accumulation',
    'usp_mm.engine.amp': 'usp_mm.engine.optim.amp',
    'usp_mm.engine.best_checkpoints': 'usp_mm.engine.checkpointing.best_checkpoints',
    'usp_mm.engine.build_errors': 'usp_mm.engine.starting.build_errors',
    'usp_mm.engine.cfg_action': 'usp_mm.config.arguments',
    'usp_mm.engine.checkpoint_data': 'usp_mm.engine.checkpointing.checkpoint_data',
    'usp_mm.engine.checkpoint_hook': 'usp_mm.engine.checkpointing.checkpoint_hook',
    'usp_mm.engine.checks.config.check': 'usp_mm.engine.checks.config.whole_config',
    'usp_mm.engine.checks.config.config_parts': 'usp_mm.engine.checks.config.unknown_keys',
    'usp_mm.engine.checks.config.judge': 'usp_mm.engine.checks.config.unknown_keys',
    'usp_mm.engine.checks.config.signatures': 'usp_mm.engine.checks.config.accepted_keys',
    'usp_mm.engine.class_check': 'usp_mm.engine.checks.classes',
    'usp_mm.engine.config_check': 'usp_mm.engine.checks.config',
    'usp_mm.engine.config_check.check': 'usp_mm.engine.checks.config.whole_config',
    'usp_mm.engine.config_check.judge': 'usp_mm.engine.checks.config.unknown_keys',
    'usp_mm.engine.ema_hook': 'usp_mm.engine.hooks.ema_hook',
    'usp_mm.engine.fast': 'usp_mm.engine.starting.fast',
    'usp_mm.engine.file_backend': 'usp_mm.engine.checkpointing.atomic_backend',
    'usp_mm.engine.finite': 'usp_mm.engine.hooks.finite_hook',
    'usp_mm.engine.flops': 'usp_mm.engine.records.flops',
    'usp_mm.engine.generator_check': 'usp_mm.engine.checks.generator',
    'usp_mm.engine.hyper_parameters': 'usp_mm.engine.optim.hyper_parameters',
    'usp_mm.engine.lars': 'usp_mm.engine.optim.lars',
    'usp_mm.engine.late_validation': 'usp_mm.engine.resuming.late_validation',
    'usp_mm.engine.latest_checkpoint': 'usp_mm.engine.checkpointing.latest_checkpoint',
    'usp_mm.engine.launch': 'usp_mm.engine.starting.build_runner',
    'usp_mm.engine.loading': 'usp_mm.engine.starting.loading',
    'usp_mm.engine.lr_scaling': 'usp_mm.engine.optim.lr_scaling',
    'usp_mm.engine.noise': 'usp_mm.analysis.noise',
    'usp_mm.engine.optim_wrapper': 'usp_mm.engine.optim.optim_wrapper',
    'usp_mm.engine.param_groups': 'usp_mm.engine.optim.param_groups',
    'usp_mm.engine.preemption': 'usp_mm.engine.checkpointing.preemption',
    'usp_mm.engine.regroup': 'usp_mm.engine.resuming.regroup',
    'usp_mm.engine.resume': 'usp_mm.engine.resuming.resume_hook',
    'usp_mm.engine.run_info': 'usp_mm.engine.records.run_info',
    'usp_mm.engine.runtime_info': 'usp_mm.engine.records.runtime_info',
    'usp_mm.engine.save_best': 'usp_mm.engine.checks.save_best',
    'usp_mm.engine.scalar_history': 'usp_mm.engine.records.scalar_history',
    'usp_mm.engine.schedule': 'usp_mm.engine.resuming.schedule',
    'usp_mm.engine.settings': 'usp_mm.engine.resuming.run_settings',
    'usp_mm.engine.sharding': 'usp_mm.engine.optim.sharding',
    'usp_mm.engine.sight_hook': 'usp_mm.engine.hooks.show_hook',
    'usp_mm.engine.start': 'usp_mm.engine.starting.start_point',
    'usp_mm.engine.tf32_hook': 'usp_mm.engine.hooks.tf32_hook',
    'usp_mm.engine.trackers': 'usp_mm.engine.records.trackers',
    'usp_mm.engine.vae_record': 'usp_mm.engine.records.vae_record',
    'usp_mm.evaluation.adm': 'usp_mm.evaluation.adm_metrics',
    'usp_mm.evaluation.feature': 'usp_mm.evaluation.feature_metrics',
    'usp_mm.evaluation.reference': 'usp_mm.evaluation.reference_data',
    'usp_mm.evaluation.reference_statistics': 'usp_mm.evaluation.computed_statistics',
    'usp_mm.evaluation.statistics': 'usp_mm.evaluation.computed_statistics',
    'usp_mm.files': 'usp_mm.fileio.atomic',
    'usp_mm.heartbeat': 'usp_mm.runtime.heartbeat',
    'usp_mm.lazy': 'usp_mm.renaming.lazy',
    'usp_mm.locations': 'usp_mm.compat.locations',
    'usp_mm.locks': 'usp_mm.fileio.locks',
    'usp_mm.log_noise': 'usp_mm.compat.log_noise',
    'usp_mm.machine_errors': 'usp_mm.runtime.machine_errors',
    'usp_mm.mmagic_samples': 'usp_mm.datasets.mmagic_samples',
    'usp_mm.models.restoration': 'usp_mm.models.restoration_picture',
    'usp_mm.models.sample_keys': 'usp_mm.models.random_keys',
    'usp_mm.models.weight_average': 'usp_mm.models.ema',
    'usp_mm.models.weight_transfer.denoiser': 'usp_mm.models.weight_transfer.to_generator',
    'usp_mm.moved': 'usp_mm.renaming.modules',
    'usp_mm.npz_files': 'usp_mm.fileio.npz',
    'usp_mm.options': 'usp_mm.config.options',
    'usp_mm.outputs': 'usp_mm.fileio.outputs',
    'usp_mm.pipeline': 'usp_mm.own_pictures',
    'usp_mm.pipeline.own': 'usp_mm.own_pictures.parts',
    'usp_mm.placeholders': 'usp_mm.renaming.placeholders',
    'usp_mm.processes': 'usp_mm.runtime.processes',
    'usp_mm.processor': 'usp_mm.runtime.processor',
    'usp_mm.renamed': 'usp_mm.renaming.arguments',
    'usp_mm.strict_loading': 'usp_mm.fileio.strict_loading',
    'usp_mm.threads': 'usp_mm.runtime.threads',
    'usp_mm.torchrun': 'usp_mm.runtime.torchrun',
    'usp_mm.vaes.blank': 'usp_mm.vaes.shapes',
    'usp_mm.vaes.meta_device': 'usp_mm.vaes.shapes',
    'usp_mm.weight_files': 'usp_mm.fileio.weights',
}

#: Older name -> current name of modules whose older name is a function's now. Python's import would hide that function behind
#: the module, as a package's attribute, so a placeholder stands for the module.
NOW_FUNCTIONS = {'usp_mm.checkpoints.convert': 'usp_mm.checkpoints.conversion'}


class _MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Import hook that returns the module of the current name for an older name."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        now = _name_now(name)
        if now is None:
            return None
        return importlib.util.spec_from_loader(name, self, origin=getattr(importlib.util.find_spec(now), 'origin', None))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        now = _name_now(spec.name)
        assert now is not None
        _warn(spec.name, now)
        module = importlib.import_module(now)
        spec.loader_state = module.__spec__
        return module

    def get_code(self, name: str) -> CodeType | None:
        """The code of the module of now, which `python -m OLDER.NAME` runs."""
        now = _name_now(name)
        assert now is not None
        _warn(name, now)
        spec = importlib.util.find_spec(now)
        assert spec is not None
        return cast(importlib.abc.InspectLoader, spec.loader).get_code(now)

    def exec_module(self, module: ModuleType) -> None:
        """Only restore the module's own `__spec__`: its code ran when it was imported under its current name."""
        assert module.__spec__ is not None
        module.__spec__ = module.__spec__.loader_state


def _warn(older: str, now: str, stacklevel: int = 3) -> None:
    warnings.warn(f'{older} is now {now}: the older name goes in the next release', FutureWarning, stacklevel=stacklevel)


def _name_now(name: str) -> str | None:
    if not name.startswith('usp_mm.'):
        return None
    for older in (name, *_packages_of(name)):
        if older in MOVED:
            return MOVED[older] + name[len(older) :]
    return None


def _packages_of(name: str) -> list[str]:
    """The packages that a module is in, the innermost first."""
    parts = name.split('.')
    return ['.'.join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def _content_of(older: str, now: str, name: str) -> Any:
    found = getattr(importlib.import_module(now), name)
    _warn(older, now, 4)
    return found


def find_moved_modules() -> None:
    """Install the import hook for `MOVED`, in first place: other finders would load a moved package's submodules twice."""
    for older, now in NOW_FUNCTIONS.items():
        placeholder(older, functools.partial(_content_of, older, now))
    if not any(isinstance(finder, _MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MovedModules())
