"""How every tool ends."""

import atexit
import os
import sys
import threading
from collections.abc import Callable

import torch


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's `main()` and exit with what it returns.

    A user's mistake (ValueError, OSError) ends in one line and exit code 1, not in a traceback, unless
    USP_TRACEBACK is set.
    """
    code: int | str | None
    try:
        code = main()
    except (ValueError, OSError) as error:
        if os.environ.get('USP_TRACEBACK'):
            raise
        code = f'error: {_one_line(error)}  (USP_TRACEBACK=1 shows where)'
    except KeyboardInterrupt:
        code = 'interrupted'
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        if not isinstance(code, str):  # not after an error: it would wait for the other processes
            torch.distributed.destroy_process_group()
        _leave(code)
    sys.exit(code)


def _leave(code: int | str | None) -> None:
    """sys.exit with the interpreter still whole, as forked processes of multiprocessing do.

    Gloo's threads outlive destroy_process_group, and one that frees the last collective's tensor while the
    interpreter is torn down aborts the process (pytorch/pytorch#190489).
    """
    if isinstance(code, str):
        sys.stderr.write(f'{code}\n')
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as sys.exit does
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def _one_line(error: Exception) -> str:
    """The message; of an error in a data-loading process, the original's."""
    text = str(error).strip()
    if text.startswith('Caught '):
        text = text.splitlines()[-1].split(': ', 1)[-1]
    return text
