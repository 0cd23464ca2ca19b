"""End processes together with their launcher, and report the reason of a failure to it."""

import ctypes
import json
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

#: Environment variable of a launched process: id of the process with which it ends.
PARENT = 'USP_PARENT'
_PR_SET_PDEATHSIG = 1
#: Seconds after a SIGINT within which another one is the same Ctrl-C, passed on by the launcher.
_REPEATED_WITHIN = 1.0
#: Environment variables of torch's elastic agent: the error file, and how often a process was and may be restarted.
_ERROR_FILE, _RESTARTS, _MOST_RESTARTS = 'TORCHELASTIC_ERROR_FILE', 'TORCHELASTIC_RESTART_COUNT', 'TORCHELASTIC_MAX_RESTARTS'
#: The exit code after a signal is this plus the signal's number, as in shells.
SIGNALLED = 128
#: The exit code of a training that was asked to end and saved a checkpoint: "try again", EX_TEMPFAIL of sysexits.h.
PREEMPTED = 75


class Stopped(KeyboardInterrupt):
    """Raised for a signal that asks the process to end, where Python itself raises nothing; `number` is the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_on(*numbers: signal.Signals) -> None:
    """Let these signals raise `Stopped` in the main thread; a signal that is ignored, as SIGHUP under nohup, stays ignored."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def interrupt_once() -> None:
    """Let a SIGINT raise KeyboardInterrupt and pass over those of the next second, in a process of torch's elastic agent.

    The agent passes Ctrl-C on to processes that the terminal has already told. The second signal, some milliseconds after the
    first, would cut off what a process does and says at its end.
    """
    if 'TORCHELASTIC_RUN_ID' not in os.environ or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return
    heard = -math.inf

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if time.monotonic() - heard > _REPEATED_WITHIN:
            heard = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)


def how_it_ended(error: KeyboardInterrupt) -> tuple[str, int]:
    """Describe the signal in words and give the exit code: ('interrupted', 130) after Ctrl-C.

    The arguments of a KeyboardInterrupt, of which Python itself gives none, follow: 'interrupted after iteration 37: …'.
    """
    if not isinstance(error, Stopped):
        return ' '.join(['interrupted', *map(str, error.args)]), SIGNALLED + signal.SIGINT
    how = 'interrupted' if error.number == signal.SIGINT else f'stopped by {signal.Signals(error.number).name}'
    return how, SIGNALLED + error.number


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (or `env`) for a child process that calls `end_with_parent`, so that it ends with this process."""
    return {**(os.environ if env is None else env), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its launcher ends, even if that is killed; on Linux only.

    A launcher is a process that passes `child_environment`, or torchrun.
    """
    parent, asked = os.getppid(), os.environ.get(PARENT)
    if sys.platform != 'linux' or (asked is None and 'TORCHELASTIC_RUN_ID' not in os.environ):
        return
    if asked in (None, str(parent)):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        gone = os.getppid() != parent
    else:
        gone = not Path('/proc', asked).exists()  # otherwise an ancestor, and a process in between ends this one
    if gone:
        sys.stderr.write('the process that started this one has ended\n')
        os._exit(SIGNALLED + signal.SIGTERM)


def report_to_launcher(message: str, error: BaseException | None = None) -> bool:
    """Write the reason of a failure to the error file of torch's elastic agent, if one launched this process.

    Args:
        message: The reason, one line.
        error: An exception that is unexpected, or caused by another process; torchrun shows its traceback, not the line.

    Returns:
        Whether `usp_mm.runtime.torchrun` launched this process and will show the line.
    """
    file = os.environ.get(_ERROR_FILE)
    if not file:
        return False
    now = time.time()
    shown = ''.join(traceback.format_exception(error)) if error else message
    info = dict(py_callstack=shown, timestamp=str(int(now)), time=now, line=message, foreseen=error is None)
    try:
        Path(file).write_text(json.dumps(dict(message=dict(message=message, extraInfo=info))))
    except OSError:
        return False  # the disk is full: this process shows the line itself
    return os.environ.get(PARENT) == str(os.getppid()) and os.environ.get(_RESTARTS) == os.environ.get(_MOST_RESTARTS)


@dataclass(frozen=True)
class Reason:
    """What `report_to_launcher` wrote: the time, the line, and whether the error was an expected one."""

    time: float
    message: str
    foreseen: bool


def read_reason(error_file_data: dict[str, Any]) -> Reason | None:
    """Read the reason from the content of the elastic agent's error file; None if `report_to_launcher` did not write it."""
    reason = error_file_data.get('message')
    info = reason.get('extraInfo', {}) if isinstance(reason, dict) else {}
    return Reason(info['time'], info['line'], info['foreseen']) if 'foreseen' in info else None
