"""`usp evaluate`, as a script: see usp_mm/cli/evaluate.py."""

from usp_mm.cli.evaluate import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
