"""Draw samples of a trained generator: pictures for people, files for evaluators.

usp sample CONFIG CKPT --classes 207 "golden retriever" 88:2 --grid samples.png
usp sample CONFIG CKPT --classes 207 --per-class 8 --trajectory samples.mp4
usp sample CONFIG CKPT --num 50000 --out samples.npz
torchrun --nproc-per-node 8 --no-python usp sample CONFIG CKPT --num 50000 --out samples.npz      # the same, sooner

A grid has one row a class. The .npz is what ADM's evaluator reads, and samples.npz.json says what it is of. A `--num` that
was killed goes on where it stopped when the same command is run again, with any number of processes and any batch size.
On a CPU --num takes one thread a process, so that the bytes are the same on any machine: start a process for each core.
(Without the lone `--`, torchrun takes --num for an abbreviation of its own --numa-binding.)
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from usp_mm.config.arguments import ToolParser, add_config_arguments, add_model_arguments, add_weights_argument
from usp_mm.fileio.outputs import check_counts, check_file

if TYPE_CHECKING:
    from mmengine.config import Config

    from usp_mm.sampling.loaded import LoadedGenerator


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, 'config of a generator')
    people = parser.add_argument_group('pictures for people')
    people.add_argument(
        '--classes',
        nargs='+',
        metavar='CLASS[:N]',
        help='labels or names, with a count where you like; a number that is the label of one class and the name of another '
        'is refused: write label=10 or name=10',
    )
    people.add_argument('--per-class', type=int, default=4, metavar='N', help='pictures of a class without a count (default 4)')
    people.add_argument('--grid', type=Path, metavar='FILE.png', help='write them as one picture')
    people.add_argument('--trajectory', type=Path, metavar='FILE.gif|.mp4', help='write how they came about, as a moving one')
    people.add_argument('--frames', type=int, default=30, help='largest number of frames of the trajectory (default 30)')
    files = parser.add_argument_group('files for evaluators')
    files.add_argument('--num', type=int, metavar='N', help='samples; on a CPU with one thread a process, see above')
    files.add_argument('--out', type=Path, metavar='FILE.npz', help='write them to this file')
    files.add_argument(
        '--label-mode', choices=['random', 'balanced'], default='random', help='which classes (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of noise and labels (default 0)')
    parser.add_argument('--batch-size', type=int, default=16, help='samples at a time of each process (default 16)')
    parser.add_argument('--device', help="default: this process's GPU, else the CPU")
    parser.add_argument('--amp', action='store_true', help='bfloat16 autocast of the network')
    parser.add_argument(
        '--fast', action='store_true', help='bfloat16, the VAE too, and compiled blocks: other bits, same results'
    )
    add_weights_argument(parser, "averaged, or as trained (default: the config's `sample_model`, ema)")
    parser.add_argument('--steps', type=int, metavar='K', help='number of steps of the sampler')
    guidance = parser.add_argument_group("guidance in place of the config's")
    guidance.add_argument('--guidance', type=float, metavar='SCALE', help='1 is none', **setting('scale'))
    guidance.add_argument('--guidance-channels', type=channels, metavar='C', help='the first C, or all', **setting('channels'))
    guidance.add_argument(
        '--guidance-interval', type=float, nargs=2, metavar=('LOW', 'HIGH'), help='times guided', **setting('interval')
    )
    add_config_arguments(parser)
    return parser.parse_args()


def setting(name: str) -> dict:
    """Arguments for argparse that store a guidance option as `name`, and store nothing if the option is not given."""
    return dict(dest=f'guidance_{name}', default=argparse.SUPPRESS)


def channels(word: str) -> int | None:
    if word != 'all' and not word.isdigit():
        raise argparse.ArgumentTypeError(f"'{word}' must be a number or 'all'")
    return None if word == 'all' else int(word)


def check_arguments(args: argparse.Namespace) -> None:
    """Check the arguments before anything is loaded.

    Raises:
        ValueError, FileNotFoundError: An argument is missing or invalid, or a folder does not exist.
    """
    pictures = [path for path in (args.grid, args.trajectory) if path]
    if not pictures and args.out is None and args.num is None:
        raise ValueError('nothing to do: give --classes with --grid or --trajectory, or --num with --out')
    if bool(pictures) != bool(args.classes):
        raise ValueError('--classes goes with --grid or --trajectory, and they with it')
    if (args.num is None) != (args.out is None):
        raise ValueError('--num goes with --out, and it with --num')
    check_counts(args, 'per_class', 'num', 'batch_size', 'steps')
    if not 0 <= args.seed < 2**56:
        raise ValueError(f'--seed {args.seed} must be from 0 to 2^56 - 1')
    if args.frames < 2:
        raise ValueError(f'--frames {args.frames} must be 2 or more')
    check_file(args.out, '--out', ('.npz',), make_folder=False)
    check_file(args.grid, '--grid', ('.png',), make_folder=False)
    check_file(args.trajectory, '--trajectory', ('.gif', '.mp4'), make_folder=False)
    if args.trajectory:
        from usp_mm.sampling.pictures import check_picture_path

        check_picture_path(args.trajectory, ('.gif', '.mp4'))  # also checks that the library to write it is installed


def apply_flags(cfg: 'Config', args: argparse.Namespace) -> list[str]:
    """Write flags into the config, and return lines for the log.

    Raises:
        ValueError: --steps is given for a sampler without a number of steps.
    """
    from usp_mm.registry import MODELS

    if 'denoiser' not in cfg.model:
        return []  # build_generator raises the error
    lines = []
    if args.fast:
        from usp_mm.engine.starting.fast import make_fast

        lines = make_fast(cfg, 'sample')
    if args.amp:
        from usp_mm.engine.optim.amp import slow_bfloat16

        cfg.model.sample_dtype = 'bfloat16'
        lines += [line for line in [slow_bfloat16()] if line]
    if args.steps is not None:
        cfg.model.sampler.num_steps = args.steps
        sampler = MODELS.build(cfg.model.sampler).describe()
        if 'num_steps' not in sampler:
            raise ValueError(f'--steps {args.steps}: the sampler chooses its own steps, {sampler}')
    given = {key: f'guidance_{key}' for key in ('scale', 'channels', 'interval') if hasattr(args, f'guidance_{key}')}
    if given:
        cfg.model.guidance = {**(cfg.model.get('guidance') or {}), **{k: getattr(args, name) for k, name in given.items()}}
    return lines


def main() -> None:
    args = parse_args()
    check_arguments(args)
    from mmengine.logging import MMLogger

    from usp_mm.apis import write_samples
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.datasets.main_process import meet_processes
    from usp_mm.engine.starting.loading import load_config
    from usp_mm.sampling.draw import build_generator, requested_classes

    take_folder(args)
    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    lines = apply_flags(cfg, args)
    rank = meet_processes(take_gpu=True)
    logger = MMLogger.get_instance('sample')
    for line in lines:
        logger.info(line)
    model = build_generator(cfg, args.checkpoint, args.device, args.weights)
    draw = dict(seed=args.seed, batch_size=args.batch_size)
    requests = requested_classes(model, args.classes, args.per_class) if args.classes else []
    if requests and rank == 0:
        draw_pictures(model, args, draw, [request.name for request in requests])
        for number, request in enumerate(requests, start=1):
            print(f'  row {number}: {request.count} of class {request.label} ({request.name})')
    if args.out:
        write_samples(model, args.out, args.num, label_mode=args.label_mode, **draw)
        if rank == 0:
            print(f'{args.out}: {args.num} samples, described in {args.out}.json')


def draw_pictures(model: 'LoadedGenerator', args: argparse.Namespace, draw: dict, names: list[str]) -> None:
    """Draw the pictures of --grid and --trajectory, each row with the name of its class."""
    from usp_mm.apis import sample_classes, sample_trajectory
    from usp_mm.images import titled
    from usp_mm.sampling.pictures import draw_grid, write_animation, write_picture

    if args.trajectory:
        frames = sample_trajectory(model, args.classes, args.per_class, num_frames=args.frames, **draw)
        write_animation(args.trajectory, [titled(draw_grid(rows), rows=names) for rows in frames])
        rows = frames[-1]
        print(f'{args.trajectory}: {len(frames)} frames')
    else:
        rows = sample_classes(model, args.classes, args.per_class, **draw)
    if args.grid:
        write_picture(args.grid, titled(draw_grid(rows), rows=names))
        print(f'{args.grid}: {len(rows)} rows')
