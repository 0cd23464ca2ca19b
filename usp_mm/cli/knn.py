"""k-NN probe of a frozen USP encoder, DiT or SiT: weighted vote of the nearest training samples, as in DINO (arXiv 2104.14294).

usp knn CONFIG CHECKPOINT --data data/imagenet
usp knn CONFIG CHECKPOINT --train latents/train --val latents/val --k 10 20 --pool cls

Nothing is trained and nothing augmented. Features are those of the last block (--layer), of an encoder after its final norm;
a DiT or SiT runs without a class and on clean latents unless --t says otherwise. They are kept in the work folder by
checkpoint, settings and data, so that a second run with other --k or --temperature does not encode again.
Writes knn.json.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

from usp_mm.config.arguments import ToolParser, add_probe_arguments
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_counts, check_folder
from usp_mm.runtime.console import table_console


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_probe_arguments(parser)
    parser.add_argument('--k', type=int, nargs='+', default=[10, 20, 100, 200], help='neighbours (default 10 20 100 200)')
    parser.add_argument('--temperature', type=float, default=0.07, help='temperature of the votes (default %(default)s)')
    parser.add_argument('--layer', type=int, metavar='K', help='block, from 1 (default: the last)')
    parser.add_argument('--pool', choices=['mean', 'cls'], default='mean', help='patch tokens, or class token (default mean)')
    parser.add_argument('--batch-size', type=int, default=256, help='samples encoded at a time (default %(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_counts(args, 'batch_size')
    folder = args.work_dir or Path('work_dirs') / Path(args.config).stem / 'knn'
    check_folder(folder, '--work-dir')
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.engine.starting.loading import load_config
    from usp_mm.probing.arguments import load_probe, probe_facts
    from usp_mm.probing.knn_probe import check_knn, feature_key, kept_features, knn_probe

    take_folder(args)
    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    settings = copy.deepcopy(cfg.model.to_dict())
    model, train, val = load_probe(cfg, args, pool=args.pool)
    layer = model.depth if args.layer is None else args.layer
    check_knn(model, train, val, layer, args.k, args.temperature)
    facts = probe_facts(args, model, train, val)
    keys = [feature_key(model, data, layer, facts['checkpoint_sha256'], settings) for data in (train, val)]
    train_features, val_features = (
        kept_features(model, data, layer, folder, key, args.batch_size) for data, key in zip((train, val), keys, strict=True)
    )
    rows = knn_probe(train_features, val_features, len(train.classes), args.k, args.temperature, str(model.device))
    report = dict(facts, layer=layer, temperature=args.temperature, results=rows)
    write_json(folder / 'knn.json', report)
    show(report)
    print(f'{folder}/knn.json')


def show(report: dict[str, Any]) -> None:
    """Print the report as a table."""
    from rich.table import Table

    table = Table('k', 'top-1 %', 'top-5 %', title=f'k-NN of {report["network"]}, {report["num_val"]} samples')
    for row in report['results']:
        table.add_row(str(row['k']), f'{row["top1"]:.2f}', '' if row['top5'] is None else f'{row["top5"]:.2f}')
    table_console().print(table)
