"""Start a scenario in a process group of its own, wait for it, and kill it."""

import importlib
import logging
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

import PIL.Image

from .changes import Kill, kill_at
from .scenarios import HERE, Scenario

ROOT = Path(__file__).resolve().parents[2]
#: What a fork has imported before it begins.
_MODULES = """usp_mm matplotlib.figure matplotlib.backends.backend_agg mmengine.runner mmpretrain.models mmpretrain.datasets
mmpretrain.visualization mmagic.models mmagic.datasets mmagic.evaluation mmagic.engine mmagic.visualization
diffusers.models.autoencoders.autoencoder_kl torch.utils.tensorboard torchvision usp_mm.apis
usp_mm.apis.end_of_training usp_mm.checkpoints usp_mm.models usp_mm.evaluation usp_mm.engine.starting.build_runner
usp_mm.vaes.tiny usp_mm.datasets.latent_cache.writer"""


def prepare_forks() -> None:
    """Let forks of this process start at once: import what the tools import, and leave out what MMEngine only logs slowly."""
    for name in _MODULES.split():
        importlib.import_module(name)
    PIL.Image.init()
    patch('mmengine.config.config.FormatCode', lambda text, **_: (text, True)).start()
    patch('mmengine.runner.runner.collect_env', dict).start()


def start(scenario: Scenario, folder: Path, log: Path, again: bool = False, kill: Kill | None = None) -> int:
    """Start a scenario as a fork of this process, and a process's ranks as forks of that.

    Returns:
        Number of the process, and of its group.
    """
    words = _words(scenario, folder, again)
    pid = os.fork()
    os.setpgid(pid, pid)  # by both, so that there is a group whoever comes first
    if pid:
        return pid
    if scenario.processes == 1:
        _become(scenario, words, {}, log, folder, kill)
    common = dict(WORLD_SIZE=str(scenario.processes), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(_free_port()))
    for rank in range(scenario.processes):
        if not os.fork():
            _become(scenario, words, dict(common, RANK=str(rank), LOCAL_RANK=str(rank)), log, folder, kill)
    for _ in range(scenario.processes):  # the first that fails ends all, as with torchrun
        if status := os.wait()[1]:
            os.write(2, f'a process ended with {os.waitstatus_to_exitcode(status)}\n'.encode())
            os.killpg(0, signal.SIGKILL)
    os._exit(0)


def start_cold(scenario: Scenario, folder: Path, log: Path, again: bool = False) -> int:
    """Start a scenario in a fresh interpreter, several processes by torchrun; returns what `start` does."""
    command = [sys.executable]
    if scenario.processes > 1:
        command += f'-m torch.distributed.run --nproc-per-node={scenario.processes} --master-port={_free_port()} --'.split()
    command += [str(ROOT / 'tools' / scenario.tool), *_words(scenario, folder, again)]
    with log.open('ab') as out:
        return subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True).pid


def wait(pid: int, until: float | None = None, seen: Callable[[], str | None] | None = None) -> tuple[int | None, str | None]:
    """Wait for the end of a run; kill its group at the time `until` of the monotonic clock, or once `seen()` tells something.

    Returns:
        Its exit code, None if it was killed here; and what `seen` told.
    """
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            _kill_group(pid)  # loaders that outlive it
            return os.waitstatus_to_exitcode(status), None
        told = seen() if seen else None
        if told or (until is not None and time.monotonic() >= until):
            _kill_group(pid)
            os.waitpid(pid, 0)
            return None, told
        time.sleep(0.0005 if seen else 0.002)


def log_of(log: Path) -> str:
    return log.read_text(errors='replace') if log.exists() else ''


def _words(scenario: Scenario, folder: Path, again: bool) -> list[str]:
    return [word.replace(HERE, str(folder)) for word in (*scenario.words, *(scenario.again if again else ()))]


def _free_port() -> int:
    from torch.distributed.elastic.utils.distributed import get_free_port

    return get_free_port()


def _become(scenario: Scenario, words: list[str], env: dict[str, str], log: Path, folder: Path, kill: Kill | None) -> None:
    """Turn this fork into the tool; it never returns."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.environ.update(env)
        os.chdir(ROOT)
        if kill is not None:
            kill_at(kill, folder)
        code = _run_tool(ROOT / 'tools' / scenario.tool, words)
        logging.shutdown()
        multiprocessing.util._exit_function()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_tool(tool: Path, words: list[str]) -> int:
    sys.argv = [str(tool), *words]
    sys.path.insert(0, str(tool.parent))
    try:
        runpy.run_path(str(tool), run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str):
            sys.stderr.write(f'{end.code}\n')
            return 1
        return end.code or 0
    return 0


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
