"""Where a training starts: anew, from a checkpoint or from weights; and whose work folder it is."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import all_gather_object, is_main_process
from mmengine.runner import Runner

from usp_mm.fileio.atomic import remove_leftovers
from usp_mm.fileio.locks import locked

from ..checkpointing.latest_checkpoint import LAST, checkpoints_in, newest_checkpoint
from ..resuming.late_validation import VALIDATED

#: The file of a work folder that a training locks, and that says which one.
LOCK = '.training.lock'
#: Names of MMEngine's folders of logs, one a start of a run.
_LOGS = re.compile(r'\d{8}_\d{6}')
#: Environment variables in which torchrun and Slurm count how often they started a job again.
_RESTARTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


def choose_start(cfg: Config, resume: str) -> list[str]:
    """Set a config to resume from a file, or with 'auto' from the newest whole checkpoint in its work folder.

    If the folder has no checkpoint, the run starts as it would without resuming: from `load_from`, or from the beginning.

    Returns:
        Lines for the log.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The folder has checkpoints, but none that is whole.
    """
    folder = Path(cfg.work_dir)
    if resume != 'auto':
        if '://' not in resume and not Path(resume).exists():
            raise FileNotFoundError(f"--resume: '{resume}', which is not there: give --resume FILE")
        cfg.resume, cfg.load_from = True, resume
        return [f'--resume: the run goes on from {resume}']
    newest = newest_checkpoint(folder)
    cfg.resume = newest.path is not None
    if newest.path is None:
        start = f'starts from load_from={cfg.load_from}' if cfg.get('load_from') else 'starts from the beginning'
        return [f'--resume: no checkpoint in {folder}, the run {start}']
    cfg.load_from = str(newest.path)
    passed_over = [f'--resume: {line}' for line in newest.passed_over]
    return [*passed_over, f'--resume: the run goes on from {newest.path}']


def follow_config_resume(cfg: Config) -> list[str]:
    """Treat `resume=True` in a config as `--resume`; with `load_from`, the run resumes from that file, as in MMEngine.

    Returns:
        Lines for the log. Raises what `choose_start` raises.
    """
    if not cfg.get('resume'):
        return []
    chosen = cfg.get('load_from')
    if chosen is None:
        return choose_start(cfg, 'auto')
    own = newest_checkpoint(Path(cfg.work_dir)).path
    if own is None or not _is_newer(own, chosen):
        return []
    return [
        f'resume=True: the run goes on from load_from={chosen}, not from the newer {own}: leave load_from out to go on from it'
    ]


def start_of_run(cfg: Config, resume: str | None, overwrite: bool) -> list[str]:
    """Set where a run starts, by its flags and its config, and refuse to start it anew among checkpoints of another one.

    A job that torchrun or Slurm started again is resumed.

    Args:
        cfg: The config, with its `work_dir`.
        resume: A file, 'auto' for the newest checkpoint of the work folder, or None.
        overwrite: Whether checkpoints that are there may be deleted, see `delete_checkpoints`.

    Returns:
        Lines for the log.

    Raises:
        ValueError: The work folder holds checkpoints, and neither flag is given; or both are.
    """
    if resume and overwrite:
        raise ValueError('--resume and --overwrite contradict each other: give one of them')
    restarts = [name for name in _RESTARTS if os.environ.get(name, '0') != '0']
    if restarts and not resume:
        return [
            f'{restarts[0]}={os.environ[restarts[0]]}: the job was started again, as with --resume',
            *choose_start(cfg, 'auto'),
        ]
    lines = choose_start(cfg, resume) if resume else follow_config_resume(cfg)
    folder = Path(cfg.work_dir)
    if not cfg.get('resume') and not resume and not overwrite and (found := _checkpoints(folder)):
        raise ValueError(
            f"'{folder}' holds checkpoints of an earlier run ({found[-1].name}): give --resume to go on from there, "
            '--overwrite to delete them and start anew, or another --work-dir'
        )
    return lines


def delete_checkpoints(runner: Runner) -> None:
    """Delete the checkpoints of an earlier run from the work folder, the best too, and say so; in the first process only."""
    if not is_main_process():
        return
    folder = Path(runner.work_dir)
    found = [*_checkpoints(folder), *folder.glob('best_*.pth')]
    for path in found:
        path.unlink()
    for name in (LAST, VALIDATED):
        (folder / name).unlink(missing_ok=True)
    if found:
        runner.logger.warning(f"--overwrite: deleted {len(found)} checkpoints of an earlier run from '{folder}'")


@contextmanager
def own_folder(cfg: Config) -> Iterator[None]:
    """Let no other training use the work folder in the block; the first process of a run holds the lock for all.

    What killed trainings left of unfinished files, in the folder and among their logs, is removed.

    Raises:
        ValueError: Another training is running there; the message says where and since when.
    """
    rank = os.environ.get({'pytorch': 'RANK', 'slurm': 'SLURM_PROCID'}.get(cfg.launcher, ''), '0')
    if rank != '0':
        yield
        return
    folder = Path(cfg.work_dir)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / LOCK, f"another training is running in '{folder}': wait for it, or give another --work-dir"):
        _tidy(folder)
        yield


def _tidy(folder: Path) -> None:
    for logs in (path for path in folder.iterdir() if _LOGS.fullmatch(path.name)):
        for path, *_ in os.walk(logs):
            remove_leftovers(Path(path))
    remove_leftovers(folder)


def check_same_start(cfg: Config) -> None:
    """Raise a ValueError if the processes of a run would resume from different files, as on nodes without a common folder."""
    starts = all_gather_object(cfg.get('load_from') if cfg.get('resume') else None)
    if len(set(starts)) > 1:
        listed = ', '.join(f'process {rank}: {start}' for rank, start in enumerate(starts))
        raise ValueError(
            f'the processes would start from different checkpoints ({listed}): put --work-dir on a file system that all nodes '
            'share, or give --resume FILE'
        )


def _checkpoints(folder: Path) -> list[Path]:
    return [path for paths in checkpoints_in(folder).values() for path in paths]


def _is_newer(own: Path, chosen: str) -> bool:
    """Whether the checkpoint `own` is newer than the chosen one, if that is a file."""
    other = Path(chosen)
    return not other.exists() or (not own.samefile(other) and own.stat().st_mtime_ns > other.stat().st_mtime_ns)
