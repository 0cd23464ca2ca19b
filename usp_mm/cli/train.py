"""Train a config: `python tools/train.py configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py`."""

import argparse
from typing import TYPE_CHECKING

from usp_mm.arguments import add_run_arguments, run_arguments
from usp_mm.options import TRACKERS

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--resume', nargs='?', const='auto', help='continue from a checkpoint, by default the latest of --work-dir'
    )
    parser.add_argument('--amp', action='store_true', help="bfloat16 autocast, also in place of a config's loss scaling")
    parser.add_argument(
        '--fast', action='store_true', help='bfloat16, compiled blocks, fused optimizer: other bits, same results'
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate to the actual batch size')
    parser.add_argument('--no-validate', action='store_true', help='skip validation during training')
    parser.add_argument(
        '--tracker', nargs='+', choices=TRACKERS, default=[], help='where else to follow the run (default: the config)'
    )
    add_run_arguments(parser)
    return parser.parse_args()


def apply_flags(cfg: 'Config', args: argparse.Namespace) -> list[str]:
    """Write flags into the config, and return lines for the run's log."""
    from usp_mm.engine.amp import train_in_bfloat16
    from usp_mm.engine.launch import choose_start, follow_config_resume, missing_checks
    from usp_mm.engine.lr_scaling import scale_learning_rates

    told = [choose_start(cfg, args.resume) if args.resume else follow_config_resume(cfg)]
    if args.amp:
        train_in_bfloat16(cfg)
    if args.fast:
        from usp_mm.engine.fast import make_fast

        told += make_fast(cfg)
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise ValueError(f'--auto-scale-lr: {args.config} does not say which batch its learning rate is for')
        cfg.auto_scale_lr.enable = True
    told += [scale_learning_rates(cfg), missing_checks(cfg)]
    if args.tracker:
        from usp_mm.engine.trackers import use_trackers

        use_trackers(cfg, args.tracker)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return [line for line in told if line]


def main() -> None:
    args = parse_args()
    from usp_mm.engine.amp import slow_bfloat16
    from usp_mm.engine.build_errors import explain_arguments
    from usp_mm.engine.launch import build_runner, load_run_config

    cfg = load_run_config(args.config, args.cfg_options, **run_arguments(args))
    told = apply_flags(cfg, args)
    runner = build_runner(cfg)
    for line in told:
        runner.logger.info(line)
    if args.amp and (warning := slow_bfloat16()):
        runner.logger.warning(warning)
    with explain_arguments(cfg):
        runner.train()
