"""Run a tool's `main()` and report errors in one line instead of a traceback."""

import atexit
import os
import sys
import threading
from collections.abc import Callable

from usp_mm.processes import end_with_parent, how_it_ended, tell_launcher


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's `main()` and exit with what it returns.

    A user's mistake (ValueError, OSError, ImportError, SystemExit with a text) ends in one line and exit code 1, not in a
    traceback, unless USP_TRACEBACK is set; Ctrl-C ends in 'interrupted' and exit code 130. Under `usp_mm.torchrun` the
    launcher shows the line once for all processes, and under torchrun the line is part of its report. Tools import slow
    modules inside `main()`, after parsing their arguments, so that errors and Ctrl-C during these imports are handled too.
    """
    end_with_parent()
    code: int | str | None
    line: str | None = None
    try:
        code = main()
    except (ValueError, OSError, ImportError) as error:  # ImportError: an optional package that is not installed
        code, line = 1, f'error: {_one_line(error)}  (USP_TRACEBACK=1 shows where)'
        if os.environ.get('USP_TRACEBACK'):
            tell_launcher(line)
            raise
    except SystemExit as error:
        code = error.code
    except KeyboardInterrupt as error:
        line, code = how_it_ended(error)
    except Exception as error:
        tell_launcher(f'error: {type(error).__name__}: {_one_line(error)}', error)
        raise
    if isinstance(code, str):
        line, code = code, 1
    if line and not tell_launcher(line):
        sys.stderr.write(f'{line}\n')
    distributed = getattr(sys.modules.get('torch'), 'distributed', None)
    if distributed and distributed.is_available() and distributed.is_initialized():
        if line is None:  # not after an error: it would wait for the other processes
            distributed.destroy_process_group()
        _leave(code or 0)
    sys.exit(code)


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
