"""How every tool ends."""

import os
import sys
from collections.abc import Callable

import torch


def run_command(main: Callable[[], int | None]) -> None:
    """Run a tool's `main()` and exit with what it returns.

    A user's mistake (ValueError, OSError) ends in one line and exit code 1, not in a traceback, unless
    USP_TRACEBACK is set.
    """
    try:
        code = main()
    except (ValueError, OSError) as error:
        if os.environ.get('USP_TRACEBACK'):
            raise
        sys.exit(f'error: {_one_line(error)}  (USP_TRACEBACK=1 shows where)')
    except KeyboardInterrupt:
        sys.exit('interrupted')
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # not after an error: it would wait for the other processes
    sys.exit(code)


def _one_line(error: Exception) -> str:
    """The message; of an error in a data-loading process, the original's."""
    text = str(error).strip()
    if text.startswith('Caught '):
        text = text.splitlines()[-1].split(': ', 1)[-1]
    return text
