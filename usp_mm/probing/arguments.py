"""Turn the arguments that `usp probe-layers` and `usp knn` share into data folders, a frozen model and recorded facts."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from usp_mm.datasets import dataset_configs
from usp_mm.fileio.addresses import local_file
from usp_mm.fileio.atomic import sha256

from .data import ProbeData, is_cache, open_data
from .features import FrozenModel, load_frozen


def split_folders(args: Namespace) -> tuple[Path, Path]:
    """The folders of training and validation data.

    Raises:
        ValueError: A folder is not given, or given twice.
        FileNotFoundError: A folder does not exist.
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
    """Load the model and the training and validation data that the command line names.

    Raises:
        FileNotFoundError, ValueError: As in `split_folders`, `open_data` and `load_frozen`.
    """
    if not 0 <= args.seed < 2**56:
        raise ValueError(f'--seed {args.seed} must be from 0 to 2^56 - 1')
    if args.workers < 0:
        raise ValueError(f'--workers {args.workers} must be 0 or more')
    MMLogger.get_instance('probe')
    _check_few_labels(cfg)
    folders = split_folders(args)
    train = open_data(cfg, folders[0], training=True, augment=augment, workers=args.workers)
    if args.labels_per_class is not None:
        train = train.with_labels(args.labels_per_class, args.seed)
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


def _check_few_labels(cfg: Config) -> None:
    """Refuse a number of labels in the config's data set, which the tools don't read."""
    for dataset in dataset_configs((cfg.get('train_dataloader') or {}).get('dataset')):
        if (number := dataset.get('labels_per_class')) is not None:
            raise ValueError(
                f'train_dataloader.dataset.labels_per_class={number} is for training: give --labels-per-class {number} here'
            )


def probe_facts(args: Namespace, model: FrozenModel, train: ProbeData, val: ProbeData) -> dict[str, Any]:
    """Facts about model and data for a report."""
    return dict(
        config=args.config,
        checkpoint=str(args.checkpoint),
        checkpoint_sha256=sha256(local_file(args.checkpoint)),
        network=type(model.network).__name__,
        depth=model.depth,
        weights=model.weights,
        t=model.t,
        pool=model.pool,
        seed=model.seed,
        train=str(train.path),
        val=str(val.path),
        num_train=len(train),
        labels_per_class=train.labels_per_class,
        labels_seed=train.labels_seed,
        num_val=len(val),
        num_classes=len(train.classes),
    )
