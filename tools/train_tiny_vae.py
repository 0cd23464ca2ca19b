"""`usp train-vae`, as a script: see usp_mm/cli/train_vae.py."""

from usp_mm.cli.train_vae import main
from usp_mm.runtime.command import run_command

if __name__ == '__main__':
    run_command(main)
