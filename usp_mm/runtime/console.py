"""The console on which the tools print tables."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def table_console(width: int = 200) -> 'Console':
    """A rich console that is as wide as the terminal, or `width` characters wide if the output is a file or a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)
