"""`usp show`, as a script: see usp_mm/cli/show.py."""

from usp_mm.cli.show import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
