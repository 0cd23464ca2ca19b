"""Code that `tools/train.py` and `tools/test.py` share."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from usp_mm.version import __version__

from .build_errors import explain_arguments
from .checks.config.check import find_runner
from .loading import load_config

#: Hooks without which a run goes on where this package would refuse it.
CHECKS = ('CheckpointMatchHook', 'ClassCheckHook', 'FiniteHook', 'LatentCacheCheckHook', 'ResumeHook')
#: Files of CheckpointHook, also with a `filename_tmpl` of its own; those of `save_best` aside.
_NUMBERED = re.compile(r'(?!best_).*?(\d+)\.pth')


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

    The arguments are those of `usp_mm.arguments.add_run_arguments`.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg = load_config(config, cfg_options, initialises=initialises)
    cfg.launcher = (cfg_options or {}).get('launcher', launcher)  # as upstream, --cfg-options come last
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)
    return cfg


def choose_start(cfg: Config, resume: str) -> str:
    """Set a config to resume from a file, or with 'auto' from the latest checkpoint in its work folder.

    If the folder has no checkpoint, the run starts as it would without resuming: from `load_from`, or from the beginning.

    Returns:
        A line for the log.

    Raises:
        FileNotFoundError: The checkpoint does not exist, or `last_checkpoint` names one that does not.
    """
    folder = Path(cfg.work_dir)
    checkpoint, reason = _latest_checkpoint(folder) if resume == 'auto' else (resume, '')
    cfg.resume = checkpoint is not None
    if checkpoint is None:
        start = f'starts from load_from={cfg.load_from}' if cfg.get('load_from') else 'starts from the beginning'
        return f'--resume: no checkpoint in {folder}, the run {start}'
    if '://' not in checkpoint and not Path(checkpoint).exists():
        told = f'{folder / "last_checkpoint"} names' if resume == 'auto' else '--resume:'
        raise FileNotFoundError(f"{told} '{checkpoint}', which is not there: give --resume FILE")
    named_so = resume == 'auto' and _named_checkpoint(folder) == checkpoint
    cfg.load_from = None if named_so else checkpoint  # None: MMEngine then reads last_checkpoint itself
    return f'--resume: the run goes on from {checkpoint}{reason}'


def follow_config_resume(cfg: Config) -> str | None:
    """Treat `resume=True` in a config as `--resume`; with `load_from`, the run resumes from that file, as in MMEngine.

    Returns:
        A line for the log, or None.

    Raises:
        FileNotFoundError: The work folder names a last checkpoint that does not exist.
    """
    if not cfg.get('resume'):
        return None
    chosen = cfg.get('load_from')
    if chosen is None:
        return choose_start(cfg, 'auto')
    own, _ = _latest_checkpoint(Path(cfg.work_dir))
    if own is None or not _is_newer(Path(own), chosen):
        return None
    return (
        f'resume=True: the run goes on from load_from={chosen}, not from the newer {own}: leave load_from out to go on from it'
    )


def _is_newer(own: Path, chosen: str) -> bool:
    """Whether the checkpoint `own` exists and is newer than the chosen one, if that is a file."""
    if not own.exists():
        return False
    other = Path(chosen)
    return not other.exists() or (not own.samefile(other) and own.stat().st_mtime_ns > other.stat().st_mtime_ns)


def _named_checkpoint(folder: Path) -> str | None:
    """The checkpoint that `last_checkpoint` of a folder names; None if the file is missing or empty."""
    return (find_latest_checkpoint(str(folder)) or None) if (folder / 'last_checkpoint').is_file() else None


def _latest_checkpoint(folder: Path) -> tuple[str | None, str]:
    """The last checkpoint of a folder, and text to add to the log.

    This is the file that `last_checkpoint` names, or in a moved or copied folder the file of that name inside it; without a
    name, it is the checkpoint with the highest number.
    """
    named = _named_checkpoint(folder)
    if named is None:
        reason = ', the last by number: last_checkpoint is empty' if (folder / 'last_checkpoint').is_file() else ''
        matches = [(path, _NUMBERED.fullmatch(path.name)) for path in folder.glob('*.pth')]
        numbered = [(int(match[1]), path.stat().st_mtime_ns, str(path)) for path, match in matches if match]
        return (max(numbered)[2] if numbered else None), reason
    inside = folder / Path(named).name
    return str(inside) if inside.exists() and not (Path(named).exists() and inside.samefile(named)) else named, ''


def prepare_cpu(cfg: Config) -> None:
    """Without a GPU, initialise gloo for several processes and wrap the model without device ids.

    MMEngine's own launchers call `torch.cuda.set_device`.

    Raises:
        ValueError: There is no GPU, and the launcher is not 'pytorch' or the runner is not MMEngine's Runner.
    """
    if torch.cuda.is_available() or cfg.launcher == 'none':
        return
    if cfg.launcher != 'pytorch':
        raise ValueError(f"--launcher {cfg.launcher} needs GPUs and none is visible: on CPU use 'pytorch'")
    if not issubclass(find_runner(cfg), Runner):
        raise ValueError(
            f"runner_type '{cfg.runner_type}' joins several processes on GPUs alone, and none is visible: leave runner_type out"
        )
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )


def build_runner(cfg: Config) -> Runner:
    """Build the runner of a checked config, of the class `runner_type`, on the available devices."""
    prepare_cpu(cfg)
    with explain_arguments(cfg):
        runner = find_runner(cfg).from_cfg(cfg)
    runner.logger.info(_about(runner))
    return runner


def _about(runner: Runner) -> str:
    """One line in place of the environment, config and order of the hooks, which only the log file has in full."""
    processes = runner.world_size
    return (
        f'usp_mm {__version__}, torch {torch.__version__}, {get_device()}, {processes} process{"es" * (processes > 1)}, '
        f'seed {runner.seed}; config, environment and hooks are in {runner.logger.log_file}'
    )


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
