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
    parser.add_argument(
        '--overwrite', action='store_true', help="delete the checkpoints of --work-dir's earlier run, and start anew"
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
    from usp_mm.engine.launch import missing_checks
    from usp_mm.engine.lr_scaling import scale_learning_rates
    from usp_mm.engine.start import start_of_run

    told: list[str | None] = [*start_of_run(cfg, args.resume, args.overwrite)]
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
    from usp_mm.engine.preemption import noting_signals
    from usp_mm.engine.start import check_same_start, delete_checkpoints, own_folder

    cfg = load_run_config(args.config, args.cfg_options, **run_arguments(args))
    with own_folder(cfg):
        told = apply_flags(cfg, args)
        runner = build_runner(cfg)
        check_same_start(cfg)
        for line in told:
            runner.logger.info(line)
        if args.amp and (warning := slow_bfloat16()):
            runner.logger.warning(warning)
        if args.overwrite:
            delete_checkpoints(runner)
        with explain_arguments(cfg), noting_signals():
            runner.train()
        if cfg.get('model_folder', True):
            from usp_mm.apis.final_folder import write_final_folder

            write_final_folder(runner)
