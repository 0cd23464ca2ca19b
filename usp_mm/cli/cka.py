"""Compare the blocks of generators with those of the encoder that they started from, by centred kernel alignment (CKA).

usp cka work_dirs/sit/iter_100.pth work_dirs/sit/iter_1200.pth --against work_dirs/usp/epoch_800.pth \\
    --data data/latents-256/val --out work_dirs/cka
usp cka my-generator --against my-encoder --data data/imagenet/val --t 0.5 --pool mean --out work_dirs/cka

Each model is a model folder, or a checkpoint that holds its config. The encoder sees clean latents; a generator runs without a
class, on latents with the noise of --t. 1 means the same features up to rotation and scale. Writes cka.png and cka.json, which
also holds each matrix for samples that do not belong together: what is not above it says nothing.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import ToolParser, add_weights_argument
from usp_mm.fileio.addresses import is_address
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_counts, check_folder

if TYPE_CHECKING:
    from usp_mm.analysis.cka import CKASettings


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('generators', nargs='+', metavar='GENERATOR', help='one or more, such as checkpoints of one training')
    parser.add_argument('--against', required=True, metavar='MODEL', help='an encoder, or another generator')
    parser.add_argument('--data', type=Path, required=True, metavar='DIR', help='held-out images, or a latent cache of them')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument(
        '--t', type=float, help='time of a DiT, 0 (clean) … 999, or of a SiT, 0 (noise) … 1 (clean) (default: clean)'
    )
    parser.add_argument(
        '--pool',
        choices=['tokens', 'mean'],
        default='tokens',
        help='tokens: each patch is an example (default); mean: the mean over the patches of an image',
    )
    parser.add_argument('--num', type=int, default=256, help='samples, spread evenly over the data (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=32, help='samples at a time (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='seed of the noise (default 0)')
    add_weights_argument(parser, 'weights of the generators: averaged (default if there are), or as trained')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_counts(args, 'num', 'batch_size')
    check_folder(args.out, '--out')
    from usp_mm.analysis.cka import CKASettings
    from usp_mm.analysis.cka_picture import draw_cka

    if not 0 <= args.seed < 2**56:
        raise ValueError(f'--seed {args.seed} must be from 0 to 2^56 - 1')
    settings = CKASettings(args.num, args.pool, args.batch_size)
    report = measure(args, settings)
    args.out.mkdir(parents=True, exist_ok=True)
    draw_cka({one['name']: one['cka'] for one in report['generators']}, report['against']['name'], args.out / 'cka.png')
    write_json(args.out / 'cka.json', report)
    print(f'{args.out}/cka.png and cka.json: {len(report["generators"])} generators, {report["num"]} samples')


def measure(args: argparse.Namespace, settings: 'CKASettings') -> dict[str, Any]:
    """The content of cka.json; one generator at a time is in memory.

    Raises:
        FileNotFoundError: A model or the data do not exist.
        ValueError: A model is of another kind, VAE or size, is given twice, or has no time `--t`.
    """
    from usp_mm.analysis.cka import (
        all_features,
        check_generator,
        check_same_latents,
        compare_blocks,
        describe,
        frozen,
        open_held_out,
    )
    from usp_mm.apis.pretrained import from_pretrained
    from usp_mm.probing.data import is_cache

    names, load_vae = titles([*args.generators, args.against]), not is_cache(args.data)
    against = from_pretrained(args.against, device=args.device, load_vae=load_vae)
    data, reference, rows = None, None, []
    for source in args.generators:
        model = from_pretrained(source, device=args.device, load_vae=load_vae, weights=args.weights)
        check_generator(model)
        data = data or open_held_out(model, args.data)
        check_same_latents({source: model, args.against: against}, data)
        reference = reference or all_features(frozen(against, args.t, args.seed), data, settings)
        network = frozen(model, args.t, args.seed)
        num = min(settings.num, len(data))
        matrices = compare_blocks(reference, all_features(network, data, settings), num)
        rows.append(dict(name=names[source], model=source, **describe(network), **matrices))
    head = dict(name=names[args.against], model=args.against, **describe(frozen(against, args.t, args.seed)))
    return dict(against=head, generators=rows, data=str(args.data), num=num, pool=settings.pool, seed=args.seed)


def titles(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each model: its file's or, where two have the same, the folder's too.

    Raises:
        FileNotFoundError: A model does not exist.
        ValueError: A model is given twice.
    """
    for i, source in enumerate(sources):
        if not is_address(source) and not Path(source).exists():
            raise FileNotFoundError(f"no model folder or checkpoint at '{source}'")
        if source in sources[:i]:
            raise ValueError(f"'{source}' is given twice: leave one out")
    short = {source: Path(source).stem for source in sources}
    twice = {name for name, count in Counter(short.values()).items() if count > 1}
    return {source: f'{Path(source).parent.name}/{name}' if name in twice else name for source, name in short.items()}
