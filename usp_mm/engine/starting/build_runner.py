"""Load the config of a run and build its Runner, for training and tests: `load_run_config`, `build_runner`."""

import io
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.hooks import CheckpointHook, Hook
from mmengine.registry import MODEL_WRAPPERS
from mmengine.runner import Runner
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.parallel import DistributedDataParallel

from usp_mm.datasets.main_process import PATIENCE
from usp_mm.runtime.heartbeat import Heartbeat, start_heartbeat
from usp_mm.version import __version__

from ..checkpointing.checkpoint_hook import AtomicCheckpointHook
from ..checks.config.whole_config import find_runner
from ..optim.amp import optimizer_wrappers
from ..optim.sharding import NAME
from .build_errors import explain_arguments, places_of
from .loading import load_config

#: Hooks without which a run goes on where this package would refuse it.
CHECKS = (
    'AtomicCheckpointHook', 'CheckpointMatchHook', 'ClassCheckHook', 'FiniteHook', 'LatentCacheCheckHook', 'PreemptionHook',
    'ResumeHook',
)  # fmt: skip


def load_run_config(
    config: str | Path,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    work_dir: str | None = None,
    launcher: str = 'none',
    local_rank: int = 0,
    initialises: bool = True,
) -> Config:
    """Load a checked config with `load_config` and set its launcher and work folder.

    The arguments are those of `usp_mm.config.arguments.add_run_arguments`.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg = load_config(config, cfg_options, initialises=initialises)
    cfg.launcher = (cfg_options or {}).get('launcher', launcher)  # as upstream, --cfg-options come last
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)
    _check_text(cfg.work_dir)
    return cfg


def _check_text(work_dir: str) -> None:
    """Refuse a work folder whose name cannot stand in the config that MMEngine writes into it."""
    try:
        work_dir.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f'--work-dir: the name {os.fsencode(work_dir)!r} is not UTF-8: choose another, or set LC_ALL=C.UTF-8 if it is'
        ) from None


def prepare_cpu(cfg: Config) -> None:
    """Without a GPU, initialise gloo for several processes.

    MMEngine's own launchers call `torch.cuda.set_device`.

    Raises:
        ValueError: There is no GPU, and the launcher is not 'pytorch', the runner is not MMEngine's Runner, or the model has
            layers that need GPUs.
    """
    if torch.cuda.is_available() or cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise ValueError(f"--launcher {cfg.launcher} needs GPUs and none is visible: on CPU use 'pytorch'")
    if not issubclass(find_runner(cfg), Runner):
        raise ValueError(
            f"runner_type '{cfg.runner_type}' joins several processes on GPUs alone, and none is visible: leave runner_type out"
        )
    if place := next(places_of(cfg.model, 'SyncBN', 'model'), None):
        raise ValueError(f"{place}.type='SyncBN' joins processes on GPUs alone, and none is visible: set {place}.type=BN")
    if cfg.get('sync_bn'):
        raise ValueError(f"sync_bn='{cfg.sync_bn}' joins processes on GPUs alone, and none is visible: leave it out")
    start_heartbeat()
    torch.distributed.init_process_group('gloo', timeout=PATIENCE)


def wrap_model(cfg: Config) -> None:
    """Complete `model_wrapper_cfg` for several processes: MMEngine's defaults, and gradients that DDP's buckets hold alone.

    Arguments that the config sets are kept.

    Raises:
        ValueError: There is no GPU, and the wrapper splits the weights.
    """
    wrapper = cfg.get('model_wrapper_cfg') or {}
    kind = wrapper.get('type', 'MMDistributedDataParallel')
    found = MODEL_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    on_cpu = not torch.cuda.is_available()
    if on_cpu and isinstance(found, type) and issubclass(found, FullyShardedDataParallel):
        raise ValueError(
            f"model_wrapper_cfg.type='{found.__name__}' splits the weights among GPUs, and no GPU is visible: leave it out "
            f"(optim_wrapper.optimizer.type='{NAME}' splits the optimizer's state on any device)"
        )
    if cfg.launcher == 'none' or not issubclass(find_runner(cfg), Runner):
        return
    if isinstance(found, type) and issubclass(found, DistributedDataParallel):
        defaults = dict(
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
            gradient_as_bucket_view=True,
        )
        cfg.model_wrapper_cfg = {'type': kind, **defaults, **wrapper, **(dict(device_ids=None) if on_cpu else {})}


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a checked config, of the class `runner_type`, on the available devices.

    Raises:
        ValueError: What `prepare_cpu` and `wrap_model` raise, or an optimizer shares its state and no hook can save it.
    """
    wrap_model(cfg)
    prepare_cpu(cfg)
    with explain_arguments(cfg):
        runner = find_runner(cfg).from_cfg(cfg)
    runner.logger.info(_about(runner))
    _check_saver(cfg, runner)
    keep_logging(runner.logger)
    heartbeat = start_heartbeat() if is_distributed() else None  # MMEngine's launchers set the environment
    if heartbeat is not None:
        runner.register_hook(ProgressHook(heartbeat))
    return runner


def _about(runner: Runner) -> str:
    """One line in place of the environment, config and order of the hooks, which only the log file has in full."""
    processes = runner.world_size
    return (
        f'usp_mm {__version__}, torch {torch.__version__}, {get_device()}, {processes} process{"es" * (processes > 1)}, '
        f'seed {runner.seed}; config, environment and hooks are in {runner.logger.log_file}'
    )


def _check_saver(cfg: Config, runner: Runner) -> None:
    """Refuse an optimizer that shares its state if its checkpoints would be saved by a hook that cannot gather it."""
    if not is_distributed() or not cfg.get('optim_wrapper'):
        return
    shared = any((wrapper.get('optimizer') or {}).get('type') == NAME for _, wrapper in optimizer_wrappers(cfg))
    for hook in runner.hooks:
        if shared and isinstance(hook, CheckpointHook) and not isinstance(hook, AtomicCheckpointHook) and hook.save_optimizer:
            raise ValueError(
                f"optim_wrapper.optimizer.type='{NAME}' needs default_hooks.checkpoint.type='AtomicCheckpointHook', which "
                f"gathers the optimizer's state, and it is '{type(hook).__name__}'"
            )


def keep_logging(logger: logging.Logger) -> None:
    """Let the files of a log take any file name, and say once if one cannot be written, in place of a traceback a line."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            if isinstance(handler.stream, io.TextIOWrapper):
                handler.stream.reconfigure(errors='backslashreplace')
            handler.handleError = _SaysOnce(handler.baseFilename)  # type: ignore[method-assign]


class _SaysOnce:
    def __init__(self, file: str) -> None:
        self._file, self._said = file, False

    def __call__(self, record: logging.LogRecord) -> None:
        if not self._said:
            self._said = True
            sys.stderr.write(f"the log '{self._file}' cannot be written ({sys.exc_info()[1]}): the run goes on without it\n")


class ProgressHook(Hook):
    """Count the iterations for the heartbeat, their beginnings too: a process that waits for data falls behind the others."""

    priority = 'VERY_HIGH'

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat

    def _before_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, mode: str = 'train') -> None:
        self._heartbeat.advance()

    def _after_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None, mode: str = 'train'
    ) -> None:
        self._heartbeat.advance()


class KeepMetrics(Hook):
    """Keep the metrics of a test, which mmagic's loop doesn't return."""

    metrics: dict | None = None

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.metrics = metrics


def missing_checks(cfg: Config) -> str | None:
    """A line for the log that names the checking hooks which a config leaves out; None if it has them all."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    kinds = [hook.get('type') if isinstance(hook, dict) else type(hook) for hook in hooks]
    missing = sorted(set(CHECKS) - {getattr(kind, '__name__', kind) for kind in kinds})
    if not missing:
        return None
    return (
        f'not looked at in this run, since the config has no {", ".join(missing)}: configs/_base_/default_runtime.py has them'
    )
