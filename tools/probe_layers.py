"""`usp probe-layers`, as a script: see usp_mm/cli/probe_layers.py."""

from usp_mm.cli.probe_layers import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
