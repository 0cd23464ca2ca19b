"""Run a trained classifier or segmentor on images: their classes, their features, or the class of every pixel.

usp infer classify CONFIG CHECKPOINT data/imagenet/val/n01440764 --out work_dirs/classes
usp infer embed CONFIG CHECKPOINT data/imagenet/val --out work_dirs/features
usp infer segment CONFIG CHECKPOINT data/ade/ADEChallengeData2016/images/validation --out work_dirs/labels

classify writes predictions.json and predictions.png; embed writes embeddings.npz, float32[N, D] 'embeddings' of the
backbone and 'paths'; segment writes labels/NAME.png, overlays/NAME.png and segments.json. A classifier's config that
trains on cached latents runs on images too: the VAE is loaded.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from usp_mm.config.arguments import ToolParser, add_config_arguments, add_model_arguments
from usp_mm.fileio.atomic import write_json, write_whole
from usp_mm.fileio.outputs import check_counts, check_folder
from usp_mm.runtime.console import table_console

KINDS = dict(classify='the best classes of each image', embed='the features of each image', segment='the class of every pixel')


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    commands = parser.add_subparsers(dest='command', required=True)
    for name, description in KINDS.items():
        command = commands.add_parser(name, help=description, description=description)
        add_model_arguments(command, "a segmentor's config" if name == 'segment' else "a classifier's config")
        command.add_argument('images', nargs='+', help='image files, or folders searched recursively')
        command.add_argument('--out', type=Path, required=True, help='folder to write to')
        if name != 'segment':  # images of many sizes
            command.add_argument('--batch-size', type=int, default=32, help='images at a time (default: %(default)s)')
        command.add_argument('--device', help='default: the GPU, else the CPU')
        if name == 'classify':
            command.add_argument('--top', type=int, default=5, help='classes of each image (default: %(default)s)')
            command.add_argument('--draw', type=int, default=16, help='images in the picture, at most (default: %(default)s)')
        add_config_arguments(command)
    return parser.parse_args()


def show(results: list[dict], heading: str, file: str, best: Callable[[dict], str], num: int = 50) -> None:
    from rich.table import Table

    table = Table('image', heading)
    for one in results[:num]:
        table.add_row(one['path'], best(one))
    table_console().print(table)
    if len(results) > num:
        print(f'… and {len(results) - num} more in {file}')


def classify(args: argparse.Namespace, paths: list[Path]) -> str:
    from usp_mm.apis.inference import inferencer
    from usp_mm.apis.predictions import class_text, classify_images, draw_predictions

    infer = inferencer(args.config, args.checkpoint, 'classify', args.device, args.cfg_options)
    args.out.mkdir(parents=True, exist_ok=True)
    predictions = classify_images(infer, paths, args.top, args.batch_size)
    draw_predictions(args.out / 'predictions.png', predictions[: args.draw])
    write_json(args.out / 'predictions.json', dict(about(args), predictions=predictions))
    show(
        predictions,
        'best classes, with scores',
        'predictions.json',
        lambda one: ', '.join(f'{class_text(best)} {best["score"]:.3f}' for best in one['top']),
    )
    return f'{args.out}/predictions.json and predictions.png: {len(paths)} images'


def embed(args: argparse.Namespace, paths: list[Path]) -> str:
    import numpy as np

    from usp_mm.apis.inference import inferencer
    from usp_mm.apis.predictions import embed_images

    infer = inferencer(args.config, args.checkpoint, 'embed', args.device, args.cfg_options)
    args.out.mkdir(parents=True, exist_ok=True)
    embeddings = embed_images(infer, paths, args.batch_size)
    with write_whole(args.out / 'embeddings.npz') as file:
        np.savez(file, embeddings=embeddings, paths=np.array([str(path) for path in paths]))
    return f'{args.out}/embeddings.npz: {embeddings.shape[0]} images, {embeddings.shape[1]} numbers each'


def segment(args: argparse.Namespace, paths: list[Path]) -> str:
    from usp_mm.apis.segmentation import segment_images, segmentor

    infer = segmentor(args.config, args.checkpoint, args.device, args.cfg_options)
    segments = segment_images(infer, paths, args.out)
    write_json(args.out / 'segments.json', dict(about(args), segments=segments))
    show(
        segments,
        'largest classes, with shares of pixels',
        'segments.json',
        lambda one: ', '.join(f'{best["class"]} {best["share"]:.3f}' for best in one['classes'][:5]),
    )
    return f'{args.out}/labels, overlays and segments.json: {len(paths)} images'


def about(args: argparse.Namespace) -> dict[str, str]:
    return dict(config=args.config, checkpoint=args.checkpoint)


def main() -> None:
    args = parse_args()
    check_counts(args, 'batch_size', 'top', 'draw')
    check_folder(args.out, '--out')
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.apis.inference import check_images
    from usp_mm.images import find_images

    take_folder(args, images='images')
    paths = find_images(args.images)
    check_images(paths)
    print(dict(classify=classify, embed=embed, segment=segment)[args.command](args, paths))
