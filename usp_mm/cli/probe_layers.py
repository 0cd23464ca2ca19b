"""Linear probe of every layer of a frozen USP encoder, DiT or SiT (Figure 4): which layer separates the classes best?

usp probe-layers CONFIG CHECKPOINT --data data/imagenet
usp probe-layers CONFIG CHECKPOINT --train latents/train --val latents/val --optimizer adamw --epochs 30

CONFIG is of pretraining, classification or generation. A feature is the mean of a block's patch tokens, of an encoder's last
block after its final norm. A DiT or SiT runs without a class and on clean latents unless --t says otherwise. The heads, a
BatchNorm and a linear layer each (Table 12), are trained at the same time: the backbone runs once a batch for all of them, and
once in all where samples look the same in every epoch and the features fit into memory (see --keep-features).
Writes layers.json and layers.png.
"""

import argparse
from pathlib import Path
from typing import Any

from usp_mm.config.arguments import ToolParser, add_probe_arguments
from usp_mm.fileio.outputs import check_folder
from usp_mm.runtime.console import table_console


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_probe_arguments(parser)
    parser.add_argument('--layers', nargs='+', default=['all'], metavar='K', help="blocks from 1, or 'all' (default)")
    parser.add_argument('--pool', choices=['mean', 'cls'], default='mean', help='patch tokens, or class token (default mean)')
    parser.add_argument(
        '--augment',
        action=argparse.BooleanOptionalAction,
        help="train on varying views: the pipeline of a probe's config on images, or the crops and flips of a cache "
        '(default: where the config is such a one, and never of a cache)',
    )
    parser.add_argument(
        '--keep-features',
        action=argparse.BooleanOptionalAction,
        help='extract the features of training samples once and keep them in memory; not with augmentation '
        '(default: without augmentation, if they take 8 GiB or less)',
    )
    parser.add_argument('--epochs', type=int, default=90, help='default: %(default)s')
    parser.add_argument(
        '--batch-size', type=int, default=1024, help='an incomplete last one is left out (default: %(default)s)'
    )
    parser.add_argument('--optimizer', choices=['lars', 'adamw'], default='lars', help='default: %(default)s')
    parser.add_argument('--lr', type=float, help='peak learning rate (default: lars 0.1 × batch / 256, adamw 0.01)')
    parser.add_argument('--warmup-epochs', type=float, metavar='E', help='before the cosine (default: a ninth of the epochs)')
    return parser.parse_args()


def chosen_layers(words: list[str], depth: int) -> list[int]:
    """The selected blocks in ascending order, without repetitions.

    Raises:
        ValueError: A value is not a number, or the block does not exist.
    """
    from usp_mm.probing.features import check_layers

    if words == ['all']:
        return list(range(1, depth + 1))
    if not all(word.isdecimal() for word in words):
        raise ValueError(f"--layers {' '.join(words)} must be 'all' or numbers from 1 to {depth}")
    layers = sorted({int(word) for word in words})
    check_layers(layers, depth)
    return layers


def main() -> None:
    args = parse_args()
    folder = args.work_dir or Path('work_dirs') / Path(args.config).stem / 'probe_layers'
    check_folder(folder, '--work-dir')
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.engine.starting.loading import load_config
    from usp_mm.probing.arguments import load_probe, probe_facts
    from usp_mm.probing.layer_probe import ProbeSettings, check_probe, probe_layers
    from usp_mm.probing.report import write_probe_report

    take_folder(args)
    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    settings = ProbeSettings(
        args.epochs, args.batch_size, args.optimizer, args.lr, args.warmup_epochs, args.seed, args.keep_features
    )
    model, train, val = load_probe(cfg, args, pool=args.pool, augment=args.augment)
    layers = chosen_layers(args.layers, model.depth)
    check_probe(model, train, val, layers, settings)
    _, rows = probe_layers(model, train, val, layers, settings)
    facts = dict(probe_facts(args, model, train, val), augmented=train.augmented, settings=settings.describe())
    show(write_probe_report(folder, rows, facts))
    print(f'{folder}/layers.json, layers.png')


def show(report: dict[str, Any]) -> None:
    """Print the report as a table; a star marks the best layer."""
    from rich.table import Table

    table = Table('layer', 'top-1 %', 'top-5 %', title=f'linear probe of {report["network"]}, {report["num_val"]} samples')
    for row in report['layers']:
        star = ' *' if row == report['best'] else ''
        table.add_row(f'{row["layer"]}{star}', f'{row["top1"]:.2f}', '' if row['top5'] is None else f'{row["top5"]:.2f}')
    table_console().print(table)
