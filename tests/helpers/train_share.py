"""One process's share of tools/train.py, which leaves its buffers in the work folder, see test_segmentation_tools.py."""

from pathlib import Path

import torch
from mmengine.dist import get_rank

import usp_mm  # noqa: F401  (upstream patches before anything else is imported)
from usp_mm.cli.train import parse_args
from usp_mm.config.arguments import run_arguments
from usp_mm.engine.runner_parts import unwrapped
from usp_mm.engine.starting.build_runner import build_runner, load_run_config
from usp_mm.runtime.command import run_command


def main() -> None:
    args = parse_args()
    runner = build_runner(load_run_config(args.config, args.cfg_options, **run_arguments(args)))
    runner.train()
    torch.save(dict(unwrapped(runner).named_buffers()), Path(args.work_dir) / f'buffers_{get_rank()}.pt')


if __name__ == '__main__':
    run_command(main)
