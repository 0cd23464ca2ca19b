"""Run a trained classifier on images: their classes, or their features.

python tools/infer.py classify CONFIG CHECKPOINT data/imagenet/val/n01440764 --out work_dirs/classes
python tools/infer.py embed CONFIG CHECKPOINT data/imagenet/val --out work_dirs/features

classify writes predictions.json and predictions.png; embed writes embeddings.npz, float32[N, D] 'embeddings' of the
backbone and 'paths'. A config that trains on cached latents runs on images too: the VAE is loaded.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import usp_mm  # noqa: F401  (upstream patches before anything else is imported)
from usp_mm.cli import run_command
from usp_mm.engine.launch import add_config_arguments
from usp_mm.files import find_images, write_json, write_whole


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, told in (('classify', 'the best classes of each image'), ('embed', 'the features of each image')):
        command = commands.add_parser(name, help=told, description=told)
        command.add_argument('config', help="a classifier's config")
        command.add_argument('checkpoint', help='its checkpoint')
        command.add_argument('images', nargs='+', help='image files, or folders searched recursively')
        command.add_argument('--out', type=Path, required=True, help='folder to write to')
        command.add_argument('--batch-size', type=int, default=32, help='images at a time (default: %(default)s)')
        command.add_argument('--device', help='default: the GPU, else the CPU')
        if name == 'classify':
            command.add_argument('--top', type=int, default=5, help='classes of each image (default: %(default)s)')
            command.add_argument('--draw', type=int, default=16, help='images in the picture, at most (default: %(default)s)')
        add_config_arguments(command)
    return parser.parse_args()


def show(predictions: list[dict], num: int = 50) -> None:
    from usp_mm.apis.predictions import shown

    table = Table('image', 'best classes, with scores')
    for one in predictions[:num]:
        table.add_row(one['path'], ', '.join(f'{shown(best)} {best["score"]:.3f}' for best in one['top']))
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    if len(predictions) > num:
        print(f'… and {len(predictions) - num} more in predictions.json')


def main() -> None:
    args = parse_args()
    for name in ('batch_size', *(('top', 'draw') if args.command == 'classify' else ())):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} {getattr(args, name)} must be 1 or more')
    paths = find_images(args.images)
    from usp_mm.apis.inference import check_images, inferencer
    from usp_mm.apis.predictions import classify_images, draw_predictions, embed_images

    check_images(paths)
    infer = inferencer(args.config, args.checkpoint, args.command, args.device, args.cfg_options)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.command == 'classify':
        predictions = classify_images(infer, paths, args.top, args.batch_size)
        draw_predictions(args.out / 'predictions.png', predictions[: args.draw])
        about = dict(config=args.config, checkpoint=args.checkpoint, predictions=predictions)
        write_json(args.out / 'predictions.json', about)
        show(predictions)
        print(f'{args.out}/predictions.json and predictions.png: {len(paths)} images')
    else:
        embeddings = embed_images(infer, paths, args.batch_size)
        with write_whole(args.out / 'embeddings.npz') as file:
            np.savez(file, embeddings=embeddings, paths=np.array([str(path) for path in paths]))
        print(f'{args.out}/embeddings.npz: {embeddings.shape[0]} images, {embeddings.shape[1]} numbers each')


if __name__ == '__main__':
    run_command(main)
