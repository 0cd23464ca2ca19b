"""What `tools/probe_layers.py` and `tools/knn.py` share."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from usp_mm.engine.launch import add_config_arguments
from usp_mm.files import sha256

from .features import FrozenModel, load_frozen
from .probe_data import ProbeData, is_cache, open_data


def add_probe_arguments(parser: ArgumentParser) -> None:
    """Model, data and where to write."""
    parser.add_argument('config', help='of pretraining, classification or generation')
    parser.add_argument('checkpoint', help='its checkpoint, or official weights of an encoder')
    parser.add_argument('--data', type=Path, metavar='ROOT', help='in place of --train ROOT/train --val ROOT/val')
    parser.add_argument('--train', type=Path, metavar='DIR', help='a folder of class folders with images, or a latent cache')
    parser.add_argument('--val', type=Path, metavar='DIR', help='likewise, of the samples that are classified')
    parser.add_argument(
        '--t', type=float, help='time of a DiT, 0 (clean) … 999, or of a SiT, 0 (noise) … 1 (clean) (default: clean)'
    )
    parser.add_argument(
        '--weights', choices=['ema', 'orig'], help='of a DiT or SiT: averaged (default) or raw, as the official probe'
    )
    parser.add_argument('--seed', type=int, default=0, help='of all that is random, such as the noise of --t (default 0)')
    parser.add_argument('--workers', type=int, default=0, help='processes that load data (default 0: this one)')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='where to write (default: below work_dirs/CONFIG-NAME)')
    add_config_arguments(parser)


def split_folders(args: Namespace) -> tuple[Path, Path]:
    """Folders of training and validation.

    Raises:
        ValueError: not given, or given twice.
        FileNotFoundError: they are not there.
    """
    if args.data is not None and (args.train or args.val):
        raise ValueError('--data stands for --train and --val: give one or the others')
    if args.data is None and not (args.train and args.val):
        raise ValueError('no data: give --data ROOT, or --train DIR and --val DIR')
    folders = (args.train, args.val) if args.data is None else (args.data / 'train', args.data / 'val')
    for folder in folders:
        is_cache(folder)
    return folders


def load_probe(
    cfg: Config, args: Namespace, *, pool: str, augment: bool | None = False
) -> tuple[FrozenModel, ProbeData, ProbeData]:
    """Model, training and validation data of the command line.

    Raises:
        FileNotFoundError, ValueError: as `split_folders`, `open_data` and `load_frozen`.
    """
    if not 0 <= args.seed < 2**56:
        raise ValueError(f'--seed {args.seed} must be from 0 to 2^56 - 1')
    if args.workers < 0:
        raise ValueError(f'--workers {args.workers} must be 0 or more')
    MMLogger.get_instance('probe')
    folders = split_folders(args)
    train = open_data(cfg, folders[0], training=True, augment=augment, workers=args.workers)
    val = open_data(cfg, folders[1], training=False, workers=args.workers)
    hashes = {data.dataset.manifest['vae_weight_hash'] for data in (train, val) if data.cached}
    if len(hashes) > 1:
        raise ValueError(f"'{folders[0]}' and '{folders[1]}' were written with VAEs of other weights, {sorted(hashes)}")
    model = load_frozen(
        cfg,
        args.checkpoint,
        weights=args.weights,
        t=args.t,
        pool=pool,
        seed=args.seed,
        load_vae=not all(map(is_cache, folders)),
        vae_hash=next(iter(hashes), None),
        device=args.device,
    )
    return model, train, val


def probe_facts(args: Namespace, model: FrozenModel, train: ProbeData, val: ProbeData) -> dict[str, Any]:
    """What a report says of model and data."""
    return dict(
        config=args.config,
        checkpoint=str(args.checkpoint),
        checkpoint_sha256=sha256(Path(args.checkpoint)),
        network=type(model.network).__name__,
        depth=model.depth,
        weights=model.weights,
        t=model.t,
        pool=model.pool,
        seed=model.seed,
        train=str(train.path),
        val=str(val.path),
        num_train=len(train),
        num_val=len(val),
        num_classes=len(train.classes),
    )
