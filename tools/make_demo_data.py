"""`usp demo-data`, as a script: see usp_mm/cli/demo_data.py."""

from usp_mm.cli.demo_data import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
