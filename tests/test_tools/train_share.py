"""One process's share of tools/train.py, which leaves its buffers in the work folder, see test_segmentation_tools.py."""

import sys
from pathlib import Path

import torch
from mmengine.dist import get_rank

import usp_mm  # noqa: F401  (upstream patches before anything else is imported)
from usp_mm.command import run_command
from usp_mm.engine.hooks import unwrapped

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))

import train


def main() -> None:
    args = train.parse_args()
    runner = train.build_runner(train.load_run_config(args.config, args.cfg_options, **train.run_arguments(args)))
    runner.train()
    torch.save(dict(unwrapped(runner).named_buffers()), Path(args.work_dir) / f'buffers_{get_rank()}.pt')


if __name__ == '__main__':
    run_command(main)
