"""Score samples: FID, sFID, IS, precision and recall as ADM's evaluator does, or other features' distances.
With --loss, the denoising loss of a generator on held-out data, which needs no samples.

usp evaluate samples.npz --ref VIRTUAL_imagenet256_labeled.npz
usp evaluate samples.npz --ref data/imagenet/train --img-size 256 --workers 8
usp evaluate samples/ --ref data/digits/val --features pixel
usp evaluate samples/ --ref data/digits/val --classifier CONFIG.py CHECKPOINT
torchrun --nproc-per-node 8 --no-python usp evaluate samples.npz --ref ...      # the same numbers, sooner
usp evaluate CONFIG CHECKPOINT --loss --data data/imagenet_latents/val --num 5000 --json loss.json

Samples and reference are an .npz with uint8 images [N, H, W, 3] as arr_0, or a folder of images; a reference may also hold
ADM's statistics. How the samples were drawn is taken from `<samples>.json`, which usp sample writes.

The denoising loss is the error of the generator's prediction at fixed times and with fixed noise, for held-out samples with
their own classes: see `usp_mm.models.denoising_loss`. It is the same for any number of processes and any batch size.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from usp_mm.config.arguments import ToolParser
from usp_mm.config.options import DECODERS, LAYOUTS
from usp_mm.fileio.atomic import read_json, write_json
from usp_mm.fileio.outputs import check_counts, check_file
from usp_mm.renaming.arguments import add_older_option
from usp_mm.runtime.console import table_console

from .denoising_loss import add_loss_arguments, check_mode, show_loss

if TYPE_CHECKING:
    from usp_mm.evaluation import ADMMetrics, FeatureMetrics


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('samples', help='.npz of usp sample, or a folder of images; with --loss, a config or model folder')
    parser.add_argument('checkpoint', nargs='?', help="with --loss: the config's checkpoint")
    parser.add_argument('--ref', help="ADM's reference .npz, an .npz of images, or a folder of images")
    features = parser.add_mutually_exclusive_group()
    features.add_argument(
        '--features', default='adm', choices=['adm', 'pixel'], help="Inception's, or the pixels at 16x16 (default: %(default)s)"
    )
    features.add_argument(
        '--classifier',
        nargs='+',
        metavar=('CONFIG', 'CKPT'),
        help='features of a classifier of mmpretrain; or its model folder',
    )
    features.add_argument('--timm', nargs=2, metavar=('MODEL', 'CKPT'), help='features of a model of timm')
    features.add_argument('--extractor', metavar='CONFIG.py', help="a config's `extractor`, built from the registry MODELS")
    parser.add_argument('--inception', metavar='FILE', help="torch-fidelity's weights (default: PyTorch's cache)")
    parser.add_argument('--classifier-size', type=int, metavar='PX', help="side to resize the classifier's input to")
    parser.add_argument(
        '--num', type=int, help='score the first NUM samples; with --loss, NUM spread over the data (default: all)'
    )
    parser.add_argument(
        '--num-ref', type=int, default=10000, help='reference images for precision and recall (default: %(default)s)'
    )
    parser.add_argument('--img-size', type=int, metavar='PX', help="centre-crop a reference folder's images to this side")
    add_older_option(parser, '--image-size', '--img-size', type=int)
    for name, what in (('', "the samples'"), ('ref-', "the reference's")):
        parser.add_argument(
            f'--{name}layout',
            choices=LAYOUTS,
            help=f'how to read {what} folder if there are two ways: only the images of its sub-folders, or all',
        )
    parser.add_argument('--batch-size', type=int, help='images at a time (default: 64; 256 with --fast on a GPU)')
    parser.add_argument(
        '--fast', action='store_true', help='Inception in channels_last, larger batches: other bits, same results'
    )
    parser.add_argument('--workers', type=int, default=DECODERS, help='processes that decode folders (default: %(default)s)')
    parser.add_argument('--cache-dir', help="folder of reference statistics (default: $USP_CACHE, else '~/.cache/usp_mm')")
    parser.add_argument('--json', type=Path, metavar='OUT', help='write the report to this file')
    add_loss_arguments(parser)
    args = parser.parse_args()
    if not args.loss:
        check_samples(args.samples)
    check_mode(parser, args)
    if args.classifier and len(args.classifier) > 2:
        parser.error(f'--classifier: give CONFIG CKPT, or a model folder, got {len(args.classifier)} words')
    return args


def build_metric(args: argparse.Namespace) -> 'ADMMetrics | FeatureMetrics':
    """Build the metric that the options select."""
    from usp_mm.evaluation import ADMMetrics, FeatureMetrics

    common = dict(num_reference_pr=args.num_ref, cache_dir=args.cache_dir, batch_size=feature_batch_size(args))
    common.update(img_size=args.img_size, num_workers=args.workers, with_label=LAYOUTS.get(args.ref_layout))
    extractor = chosen_extractor(args)
    if args.inception and extractor is not None:
        raise ValueError('--inception goes with --features adm: leave it out')
    if args.classifier_size and not args.classifier:
        raise ValueError('--classifier-size goes with --classifier: leave it out')
    if extractor is None:
        return ADMMetrics(args.ref, args.inception, channels_last=args.fast, **common)
    return FeatureMetrics(extractor, args.ref, **common)


def feature_batch_size(args: argparse.Namespace) -> int:
    """Number of images per call of the feature extractor."""
    import torch

    return args.batch_size or (256 if args.fast and torch.cuda.is_available() else 64)


def chosen_extractor(args: argparse.Namespace) -> dict | None:
    """Config of the selected feature extractor; None for ADM's."""
    from usp_mm.apis.folder_argument import take_folder

    if args.classifier:
        found = argparse.Namespace(config=args.classifier[0], checkpoint=(args.classifier[1:] or [None])[0])
        take_folder(found)
        return dict(type='ClassifierFeatures', config=found.config, checkpoint=found.checkpoint, img_size=args.classifier_size)
    if args.timm:
        model, checkpoint = args.timm
        return dict(type='TimmFeatures', model=model, checkpoint=checkpoint)
    if args.extractor:
        if not Path(args.extractor).is_file():
            raise FileNotFoundError(f"no config at '{args.extractor}': give a file that sets `extractor`")
        from mmengine.config import Config

        cfg = Config.fromfile(args.extractor)
        if 'extractor' not in cfg:
            raise ValueError(f"'{args.extractor}' sets no `extractor`: expected a dict with its type and arguments")
        return dict(cfg.extractor)
    return dict(type='PixelFeatures') if args.features == 'pixel' else None


def count_samples(args: argparse.Namespace, there: int) -> int:
    """Number of samples to score."""
    if args.num is not None and not 0 < args.num <= there:
        raise ValueError(f"--num {args.num}: '{args.samples}' holds {there} samples")
    return there if args.num is None else args.num


def check_samples(samples: str) -> None:
    """Raise a ValueError for a model, which has to draw its samples first."""
    from usp_mm.fileio.weights import FOLDER_WEIGHTS

    path = Path(samples)
    if path.suffix in ('.pth', '.safetensors', '.py') or (path / FOLDER_WEIGHTS).is_file():
        raise ValueError(
            f"'{samples}' is a model, and samples are scored: draw them with `usp sample {samples} … --out samples.npz`; a "
            f'classifier or segmentor is evaluated by `usp test {samples}`, the denoising loss of a generator by --loss'
        )


def main() -> None:
    args = parse_args()
    check_file(args.json, '--json', make_folder=False)
    check_counts(args, 'batch_size', 'num_ref', 'img_size', 'classifier_size', 'times')
    if args.loss:
        show_loss(args)
        return
    from mmengine.dist import get_world_size
    from mmengine.logging import MMLogger
    from tqdm import tqdm

    from usp_mm.datasets.main_process import meet_processes
    from usp_mm.evaluation.images import open_images

    logger = MMLogger.get_instance('evaluate')
    source = open_images(args.samples, num_workers=args.workers, with_label=LAYOUTS.get(args.layout))
    num = count_samples(args, source.num)
    metric = build_metric(args)
    description = read_json(Path(f'{Path(args.samples)}.json')) or {}
    metric.expect(num, {'classes': getattr(source, 'classes', None), **description})
    rank = meet_processes(take_gpu=True)
    if args.fast:
        where = 'Inception in channels_last, ' if chosen_extractor(args) is None else ''
        logger.info(f'--fast: {where}{metric.batch_size} images at a time')
    world = get_world_size()
    with tqdm(desc='samples', total=num, unit='image', disable=rank > 0) as progress:
        for numbers, images in source.batches(metric.batch_size, rank, world, num):
            metric.add(numbers, images)
            progress.update(min(len(numbers) * world, num - progress.n))
    metric.evaluate()
    if rank == 0:
        assert metric.report is not None
        show(metric.report)
        if args.json:
            write_json(args.json, metric.report)


def show(report: dict) -> None:
    """Print the report as a table."""
    from rich.table import Table

    from usp_mm.evaluation.report import report_rows

    table = Table('', '', show_header=False, title='scores')
    for name, value in report_rows(report):
        table.add_row(name, value)
    table_console().print(table)
