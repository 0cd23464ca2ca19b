"""Run a tool's `main()` and report errors in one line instead of a traceback."""

import atexit
import io
import os
import select
import sys
import threading
from collections.abc import Callable

from usp_mm.runtime.heartbeat import end_as_failed
from usp_mm.runtime.machine_errors import explain_closed, explain_machine
from usp_mm.runtime.processes import end_with_parent, how_it_ended, interrupt_once, report_to_launcher

#: Errors of users; ImportError is an optional package that is not installed.
_FORESEEN = (ValueError, OSError, ImportError)

#: Exit code of a program whose output is no longer read, as the shell shows it for SIGPIPE.
_BROKEN_PIPE = 141


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's `main()` and exit with what it returns.

    A user's mistake (ValueError, OSError, ImportError, SystemExit with a text) ends in one line and exit code 1, not in a
    traceback, unless USP_TRACEBACK is set, and so does what the machine lacks (`usp_mm.runtime.machine_errors`). Ctrl-C ends in
    'interrupted' and exit code 130. Under `usp_mm.runtime.torchrun` the launcher shows the line once for all processes, and
    under torchrun the line is part of its report. If the reader of the output has ended (`usp … | head`), the tool ends without
    a line. Tools import slow modules inside `main()`, after parsing their arguments, so that errors and Ctrl-C during these
    imports are handled too.
    """
    end_with_parent()
    interrupt_once()
    _print_any_name()
    code: int | str | None
    line: str | None = None
    consequence: Exception | None = None
    try:
        code = main()
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt as error:
        line, code = how_it_ended(error)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _is_cut_off():
            sys.exit(_BROKEN_PIPE)
        closed = explain_closed(error)
        message = closed or explain_machine(error) or (_one_line(error) if isinstance(error, _FORESEEN) else None)
        if message is None or os.environ.get('USP_TRACEBACK'):
            report_to_launcher(f'error: {message or f"{type(error).__name__}: {_one_line(error)}"}', None if message else error)
            end_as_failed()
            raise
        code, line, consequence = 1, f'error: {message}  (USP_TRACEBACK=1 shows where)', error if closed else None
    if isinstance(code, str):
        line, code = code, 1
    if not _print_rest():
        code = code or _BROKEN_PIPE
    if line and not report_to_launcher(line, consequence):
        sys.stderr.write(f'{line}\n')
    if line:
        end_as_failed()
    distributed = getattr(sys.modules.get('torch'), 'distributed', None)
    if distributed and distributed.is_available() and distributed.is_initialized():
        if line is None:  # not after an error: it would wait for the other processes
            distributed.destroy_process_group()
        _leave(code or 0)
    sys.exit(code)


def _is_cut_off() -> bool:
    """Whether what reads this program's output has ended, as `head` does. What is still to be printed is then dropped."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _print_rest() -> bool:
    """Print what is buffered; return whether it could be printed."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return not _is_cut_off()
    return True


def _print_any_name() -> None:
    """Print names of files that are not text in the terminal's encoding with escapes, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')


def _leave(code: int) -> None:
    """Exit without tearing down the interpreter, as multiprocessing's forked processes do.

    Gloo's threads outlive destroy_process_group, and one that frees the last collective's tensor while the
    interpreter is torn down aborts the process (pytorch/pytorch#190489).
    """
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as sys.exit does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _one_line(error: Exception) -> str:
    """The error's message; for an error re-raised from a data-loading process, the message of the original error."""
    text = str(error).strip()
    if text.startswith('Caught '):
        text = text.splitlines()[-1].split(': ', 1)[-1]
    return text
