"""Train a config, or everything on a folder of pictures.

usp train configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py
usp train my-photos                # VAE, latent cache, USP, linear probe, generator: all in work_dirs/my-photos

A folder holds pictures, or a sub-folder of pictures for each class. The same command goes on where it stopped.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import ToolParser, add_run_arguments, run_arguments
from usp_mm.config.lookup import find_config
from usp_mm.config.options import LAYOUTS, TRACKERS

if TYPE_CHECKING:
    from mmengine.config import Config

#: The parts of a training on a folder of pictures.
PARTS = ('vae', 'cache', 'pretrain', 'probe', 'generate')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', metavar='CONFIG|FOLDER', help='config file, or folder of pictures')
    parser.add_argument(
        '--resume', nargs='?', const='auto', help='continue from a checkpoint, by default the latest of --work-dir'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help="delete the earlier run's checkpoints, or a folder's training, and start anew"
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
    of_folders = add_folder_arguments(parser)
    args = parser.parse_args()
    of_configs = {action.dest for action in parser._actions} - of_folders - {'help', 'config', 'overwrite'}
    args.is_folder = Path(args.config).is_dir()
    for name in of_configs if args.is_folder else of_folders:
        if getattr(args, name) != parser.get_default(name) and (name != 'resume' or args.resume != 'auto'):
            kind = 'a config, and' if args.is_folder else 'a folder of pictures, and no folder is at'
            is_one = 'is a folder of pictures' if args.is_folder else ''
            is_one += ': give --out' if name == 'work_dir' else ''
            parser.error(f"--{name.replace('_', '-')} is for {kind} '{args.config}' {is_one}".rstrip())
    return args


def _check_config(name: str) -> None:
    """Refuse a name that is neither a config nor a folder, before slow imports."""
    try:
        find_config(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}; or a folder of pictures, which is not there either') from error


def add_folder_arguments(parser: argparse.ArgumentParser) -> set[str]:
    """Add the options for a folder of pictures, and return their names."""
    group = parser.add_argument_group('for a folder of pictures', 'numbers that are left out are chosen for folder and machine')
    whole: Any = dict(type=int, metavar='N')
    actions = [
        group.add_argument('--out', type=Path, metavar='DIR', help='where everything goes (default: work_dirs/NAME-OF-FOLDER)'),
        group.add_argument('--vae', help="'laptop' (default) is trained on the pictures; or a preset; or a VAE's folder"),
        group.add_argument('--layout', choices=LAYOUTS, help='how to read a folder if there are two ways'),
        group.add_argument('--only', metavar='PART,…', help=f'parts to run, of {",".join(PARTS)} (default: all)'),
        group.add_argument('--img-size', help='side of the crops, pixels', **whole),
        group.add_argument('--batch-size', help='pictures a step', **whole),
        group.add_argument('--vae-steps', help='training steps of the laptop VAE', **whole),
        group.add_argument('--epochs', help='epochs of pretraining', **whole),
        group.add_argument('--steps', help='training steps of the generator', **whole),
        group.add_argument('--minutes', type=float, metavar='M', help='longest estimated time that is accepted (default: 60)'),
        group.add_argument('--seed', type=int, metavar='S', help='seed of everything that is random (default: 0)'),
    ]
    return {action.dest for action in actions}


def train_pictures(args: argparse.Namespace) -> None:
    """Train everything on a folder of pictures.

    Raises:
        ValueError: An option is out of range, or names an unknown part.
    """
    import signal

    from usp_mm.presets import lookup
    from usp_mm.runtime.processes import stop_on

    only = PARTS if args.only is None else tuple(word.strip() for word in args.only.split(','))
    for name in only:
        lookup(dict.fromkeys(PARTS), name, 'part')
    if args.seed is not None and args.seed < 0:
        raise ValueError(f'--seed {args.seed} must be 0 or more')
    stop_on(signal.SIGTERM, signal.SIGHUP)
    from usp_mm.own_pictures.run import MINUTES, Request, train_folder

    folder = Path(args.config)
    train_folder(
        Request(
            folder=folder,
            out=args.out or Path('work_dirs') / folder.resolve().name,
            vae=args.vae or 'laptop',
            layout=args.layout,
            only=tuple(name for name in PARTS if name in only),
            sizes={name: getattr(args, name) for name in ('img_size', 'batch_size', 'vae_steps', 'epochs', 'steps')},
            seed=args.seed or 0,
            minutes=args.minutes or MINUTES,
            overwrite=args.overwrite,
        )
    )


def apply_flags(cfg: 'Config', args: argparse.Namespace) -> list[str]:
    """Write flags into the config, and return lines for the run's log."""
    from usp_mm.engine.optim.amp import train_in_bfloat16
    from usp_mm.engine.optim.lr_scaling import scale_learning_rates
    from usp_mm.engine.starting.build_runner import missing_checks
    from usp_mm.engine.starting.start_point import start_of_run

    lines: list[str | None] = [*start_of_run(cfg, args.resume, args.overwrite)]
    if args.amp:
        train_in_bfloat16(cfg)
    if args.fast:
        from usp_mm.engine.starting.fast import make_fast

        lines += make_fast(cfg)
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise ValueError(f'--auto-scale-lr: {args.config} does not say which batch its learning rate is for')
        cfg.auto_scale_lr.enable = True
    lines += [scale_learning_rates(cfg), missing_checks(cfg)]
    if args.tracker:
        from usp_mm.engine.records.trackers import use_trackers

        use_trackers(cfg, args.tracker)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    return [line for line in lines if line]


def main() -> None:
    args = parse_args()
    if args.is_folder:
        train_pictures(args)
        return
    _check_config(args.config)
    from usp_mm.engine.checkpointing.interruption import telling_what_is_saved
    from usp_mm.engine.checkpointing.preemption import noting_signals
    from usp_mm.engine.checks.data_folders import check_data_folders
    from usp_mm.engine.optim.amp import slow_bfloat16
    from usp_mm.engine.optim.lr_scaling import other_batch
    from usp_mm.engine.starting.build_errors import explain_arguments
    from usp_mm.engine.starting.build_runner import build_runner, load_run_config
    from usp_mm.engine.starting.start_point import check_same_start, delete_checkpoints, own_folder

    cfg = load_run_config(args.config, args.cfg_options, **run_arguments(args))
    with own_folder(cfg):
        lines = apply_flags(cfg, args)
        check_data_folders(cfg, 'train_dataloader', 'val_dataloader')
        runner = build_runner(cfg)
        check_same_start(cfg)
        for line in lines:
            runner.logger.info(line)
        warnings = [other_batch(cfg, runner.world_size, args.cfg_options), slow_bfloat16() if args.amp else None]
        for warning in filter(None, warnings):
            runner.logger.warning(warning)
        if args.overwrite:
            delete_checkpoints(runner)
        with explain_arguments(cfg), noting_signals(runner.hooks), telling_what_is_saved(runner):
            runner.train()
        if cfg.get('model_folder', True):
            from usp_mm.apis.end_of_training import write_final_folder

            write_final_folder(runner)
