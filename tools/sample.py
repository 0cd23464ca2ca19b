"""`usp sample`, as a script: see usp_mm/cli/sample.py."""

from usp_mm.cli.sample import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
