"""`usp cka`, as a script: see usp_mm/cli/cka.py."""

from usp_mm.cli.cka import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
