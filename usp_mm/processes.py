"""Processes that end together, and what a launched one tells its launcher."""

import ctypes
import json
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

#: In the environment of a launched process: the process that it ends with.
PARENT = 'USP_PARENT'
_PR_SET_PDEATHSIG = 1
#: Of torch's elastic agent: where a process says why it fails, and how often it was and may be started again.
_ERROR_FILE, _RESTARTS, _MOST_RESTARTS = 'TORCHELASTIC_ERROR_FILE', 'TORCHELASTIC_RESTART_COUNT', 'TORCHELASTIC_MAX_RESTARTS'
#: Exit code of a process that a signal ends is this and the signal's number, as shells have it.
SIGNALLED = 128


class Stopped(KeyboardInterrupt):
    """A signal that asks to end, other than Ctrl-C's; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def stop_on(*numbers: signal.Signals) -> None:
    """Let these signals raise `Stopped` in the main thread, but those that are ignored, as SIGHUP under nohup."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, stop)


def how_it_ended(error: KeyboardInterrupt) -> tuple[str, int]:
    """A word for it, and the exit code: ('interrupted', 130) after Ctrl-C."""
    number = getattr(error, 'number', signal.SIGINT)
    return 'interrupted' if number == signal.SIGINT else f'stopped by {signal.Signals(number).name}', SIGNALLED + number


def child_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment, or `env`, for a process that calls `end_with_parent` and is to end with this one."""
    return {**(os.environ if env is None else env), PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Receive SIGTERM when the process that launched this one ends, killed or not; on Linux only.

    Launchers are those that give `child_environment`, and torchrun.
    """
    parent, asked = os.getppid(), os.environ.get(PARENT)
    if sys.platform != 'linux' or (asked is None and 'TORCHELASTIC_RUN_ID' not in os.environ):
        return
    if asked in (None, str(parent)):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        gone = os.getppid() != parent
    else:
        gone = not Path('/proc', asked).exists()  # otherwise it is further up, and what is between ends this one
    if gone:
        sys.stderr.write('the process that started this one has ended\n')
        os._exit(SIGNALLED + signal.SIGTERM)


def tell_launcher(message: str, error: BaseException | None = None) -> bool:
    """Leave the reason of a failure where torch's elastic agent looks for it, if one has launched this process.

    Args:
        message: one line.
        error: an exception that nobody foresaw, whose traceback torchrun shows in place of the line.

    Returns:
        Whether `usp_mm.torchrun` has launched this process and will show the line.
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
    """What `tell_launcher` wrote, and when."""

    time: float
    message: str
    foreseen: bool


def told(error_file_data: dict[str, Any]) -> Reason | None:
    """The reason in the content of an error file of torch's elastic agent; None if `tell_launcher` wrote none."""
    reason = error_file_data.get('message')
    info = reason.get('extraInfo', {}) if isinstance(reason, dict) else {}
    return Reason(info['time'], info['line'], info['foreseen']) if 'foreseen' in info else None
