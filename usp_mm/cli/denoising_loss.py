"""`usp evaluate CONFIG CHECKPOINT --loss`: the denoising loss of a generator on held-out data."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import add_config_arguments, add_weights_argument
from usp_mm.fileio.atomic import write_json
from usp_mm.runtime.console import table_console

if TYPE_CHECKING:
    from mmengine.config import Config

    from usp_mm.evaluation import DenoisingLoss
    from usp_mm.probing.data import ProbeData
    from usp_mm.sampling.loaded import LoadedGenerator

HOW_TO_GIVE = (
    "give --data DIR, a cache that 'usp cache write' made of images that are not trained on, or their folder of class folders"
)
#: Options that only scores of samples have.
_OF_SAMPLES = (
    'ref', 'classifier', 'timm', 'extractor', 'inception', 'classifier_size', 'img_size', 'layout', 'ref_layout', 'cache_dir',
)  # fmt: skip
#: Options that only --loss has.
_OF_LOSS = ('checkpoint', 'data', 'weights', 'times', 'seed', 'device')


def add_loss_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --loss and its options."""
    parser.add_argument('--loss', action='store_true', help='measure the denoising loss of CONFIG CHECKPOINT, without samples')
    parser.add_argument(
        '--data', type=Path, metavar='DIR', help="held-out latent cache or class folders (default: the config's val_dataloader)"
    )
    add_weights_argument(parser, "averaged, or as trained (default: the config's `sample_model`, ema)")
    parser.add_argument('--times', type=int, metavar='T', help='times in the grid (default: 20)')
    parser.add_argument('--seed', type=int, help='seed of the noise (default: 0)')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    add_config_arguments(parser)


def check_mode(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with the parser's error if an option belongs to the other kind of score, or --ref is missing."""
    wrong = [name for name in (_OF_SAMPLES if args.loss else _OF_LOSS) if getattr(args, name) is not None]
    wrong += ['features'] * (args.loss and args.features != 'adm') + ['fast'] * (args.loss and args.fast)
    wrong += ['cfg_options'] * (not args.loss and bool(args.cfg_options))
    if wrong:
        shown = 'a second file' if wrong[0] == 'checkpoint' else f'--{wrong[0].replace("_", "-")}'
        parser.error(f'{shown} does not go with --loss' if args.loss else f'{shown} goes with --loss')
    if not args.loss and args.ref is None:
        parser.error('the following arguments are required: --ref')


def show_loss(args: argparse.Namespace) -> None:
    """Measure the loss, print it as a table and write the report."""
    from mmengine.logging import MMLogger

    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.datasets.main_process import meet_processes
    from usp_mm.engine.starting.loading import load_config
    from usp_mm.evaluation import DenoisingLoss
    from usp_mm.evaluation.denoising_loss import NUM_TIMES
    from usp_mm.probing.data import is_cache, open_data
    from usp_mm.sampling.draw import build_generator

    args.config = args.samples
    take_folder(args)
    MMLogger.get_instance('evaluate')
    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    if 'denoiser' not in cfg.model:
        raise ValueError(f"--loss needs the config of a generator, '{args.config}' has model.type '{cfg.model.type}'")
    metric = DenoisingLoss(args.times or NUM_TIMES, args.seed or 0, args.weights, args.num)
    path = held_out_data(cfg, args.data)
    data = open_data(cfg, path, training=False, workers=0 if is_cache(path) else args.workers)
    metric.expect(len(data))
    rank = meet_processes(take_gpu=True)
    loaded = build_generator(cfg, args.checkpoint, args.device, args.weights)
    check_data(loaded, data)
    measure(metric, loaded, data, args.batch_size or 64)
    if rank == 0:
        assert metric.report is not None
        report = dict(config=args.config, checkpoint=str(args.checkpoint), data=str(data.path), **metric.report)
        show_report(report)
        if args.json:
            write_json(args.json, report)


def held_out_data(cfg: 'Config', given: Path | None) -> Path:
    """The folder of held-out data: the given one, or that of the config's validation.

    Raises:
        ValueError: None is given and the validation has none; or it is that of training.
    """
    trained = _folders(cfg, 'train')
    own = [path for path in _folders(cfg, 'val') if path not in trained]
    if given is None and not own:
        raise ValueError(f'--loss needs held-out data, and val_dataloader of the config has none: {HOW_TO_GIVE}')
    path = own[0] if given is None else given
    if path.expanduser().resolve() in [one.expanduser().resolve() for one in trained]:
        raise ValueError(f"'{path}' is what the generator was trained on, so not held out: {HOW_TO_GIVE}")
    return path


def _folders(cfg: 'Config', split: str) -> list[Path]:
    """Folders of latent caches and images that a config's data loaders read."""
    from usp_mm.datasets import dataset_configs

    loaders = cfg.get(f'{split}_dataloader') or {}
    found = [
        dataset
        for loader in (loaders if isinstance(loaders, list) else [loaders])
        for dataset in dataset_configs(loader.get('dataset'))
    ]
    return [Path(one.data_root) / (one.get('data_prefix') or '') for one in found if one.get('data_root')]


def check_data(loaded: 'LoadedGenerator', data: 'ProbeData') -> None:
    """Compare the classes of generator and data, by name if the checkpoint has names; images are encoded one at a time.

    Raises:
        ValueError: Label k stands for different classes, or the data have more classes.
    """
    from usp_mm.datasets.class_names import check_classes

    number = loaded.model.denoiser.num_classes
    if len(data.classes) > number:
        raise ValueError(f"'{data.path}' has {len(data.classes)} classes, the generator {number}: give its own data")
    if loaded.classes:
        check_classes(loaded.classes, data.classes, f"checkpoint '{loaded.checkpoint}' and '{data.path}'", 'give its own data')
    if not data.cached:
        loaded.model.data_preprocessor.codec.encode_batch_size = 1  # so that rounding does not depend on the batch


def measure(metric: 'DenoisingLoss', loaded: 'LoadedGenerator', data: 'ProbeData', batch_size: int) -> dict[str, float]:
    """Give each process its share of the data, and return what `DenoisingLoss.evaluate` does."""
    import torch
    from mmengine.dist import get_rank, get_world_size
    from tqdm import tqdm

    from usp_mm.evaluation.denoising_loss import spread

    model, rank, world = loaded.model, get_rank(), get_world_size()
    metric.take(model)
    own = spread(metric.num_samples or len(data), len(data))[rank::world]
    batches = [own[start : start + batch_size] for start in range(0, len(own), batch_size)]
    with tqdm(total=len(own), desc='denoising loss', unit='sample', leave=False, disable=rank > 0) as progress:
        for batch, numbers in zip(data.loader(batches), batches, strict=True):
            prepared: dict[str, Any] = model.data_preprocessor(batch, training=False)
            labels = torch.cat([sample.gt_label for sample in prepared['data_samples']])
            metric.add(numbers, prepared['inputs'], labels)
            progress.update(len(numbers))
    return metric.evaluate()


def show_report(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table

    table = Table('', '', show_header=False, title='denoising loss')
    error = '' if report['standard_error'] is None else f' ± {report["standard_error"]:.6f} (over samples)'
    table.add_row('mean', f'{report["denoising_loss"]:.6f}{error}')
    for time, value in zip(report['times'], report['per_time'], strict=True):
        table.add_row(f't = {time:g}', f'{value:.6f}')
    for name in ('num_samples', 'seed', 'weights', 'error'):
        table.add_row(name, str(report[name]))
    table.add_row('left out', ', '.join(report['left_out']) or '–')
    table_console().print(table)
