"""What `tools/train.py` and `tools/test.py` share."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

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
    """`load_config`, with launcher and work folder set: the arguments of `usp_mm.arguments.add_run_arguments`."""
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    cfg = load_config(config, cfg_options, initialises=initialises)
    cfg.launcher = (cfg_options or {}).get('launcher', launcher)  # as upstream, --cfg-options come last
    cfg.work_dir = work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(cfg.filename).stem)
    return cfg


def choose_start(cfg: Config, resume: str) -> str:
    """Let a config resume from a file, or from the latest checkpoint of its work folder ('auto') where there is one.

    Without one, the run starts as it does without resuming: from `load_from`, or from the beginning.

    Returns:
        A line for the log.

    Raises:
        FileNotFoundError: the work folder names a last checkpoint that is not there.
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
    cfg.load_from = None if named_so else checkpoint  # None: MMEngine looks there too
    return f'--resume: the run goes on from {checkpoint}{reason}'


def follow_config_resume(cfg: Config) -> str | None:
    """Let `resume=True` of a config mean `--resume`; with `load_from`, the run goes on from that file, as in MMEngine.

    Returns:
        A line for the log, if there is something to say.

    Raises:
        FileNotFoundError: the work folder names a last checkpoint that is not there.
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
    """Whether a checkpoint is there, and was written after the chosen one, if that is a file."""
    if not own.exists():
        return False
    other = Path(chosen)
    return not other.exists() or (not own.samefile(other) and own.stat().st_mtime_ns > other.stat().st_mtime_ns)


def _named_checkpoint(folder: Path) -> str | None:
    """What `last_checkpoint` of a folder says; None where it is not there or empty."""
    return (find_latest_checkpoint(str(folder)) or None) if (folder / 'last_checkpoint').is_file() else None


def _latest_checkpoint(folder: Path) -> tuple[str | None, str]:
    """What `last_checkpoint` names, or of a moved or copied folder the file of that name in it; else the last by number.

    With it, what the log has to add.
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
    """Where there is no GPU, join the processes through gloo and wrap the model without device ids.

    MMEngine's own launchers call `torch.cuda.set_device`.

    Raises:
        ValueError: a launcher other than 'pytorch', or another runner than MMEngine's Runner, without a GPU.
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
    """Runner of a checked config, of its `runner_type`, on whatever devices there are."""
    prepare_cpu(cfg)
    with explain_arguments(cfg):
        return find_runner(cfg).from_cfg(cfg)


class KeepMetrics(Hook):
    """The metrics of a test, which mmagic's loop doesn't return."""

    metrics: dict | None = None

    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.metrics = metrics


def missing_checks(cfg: Config) -> str | None:
    """A line for the log of a config that leaves out hooks by which a run is refused; None where all are there."""
    hooks = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ())]
    kinds = [hook.get('type') if isinstance(hook, dict) else type(hook) for hook in hooks]
    missing = sorted(set(CHECKS) - {getattr(kind, '__name__', kind) for kind in kinds})
    if not missing:
        return None
    return (
        f'not looked at in this run, since the config has no {", ".join(missing)}: configs/_base_/default_runtime.py has them'
    )
