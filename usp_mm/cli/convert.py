"""Convert a checkpoint from or to another project's format.

usp convert DiT-XL-2-256x256.pt work_dirs/dit-xl.pth                 # for this package: the default
usp convert work_dirs/RUN/epoch_800.pth usp.pth --to official
usp convert work_dirs/RUN/epoch_800.pth vit.safetensors --to timm
usp convert work_dirs/RUN/iter_400000.pth dit-pipeline --to diffusers --vae sd-vae-ft-ema

The kind is detected from the names of the tensors. Every tensor is listed as used, renamed, folded or dropped, with the
reason; a tensor without a place in the target fails the conversion. Files are read as data and never run, and the result
appears whole or not at all.
"""

import argparse
from pathlib import Path

from usp_mm.checkpoints.kinds import KINDS, TARGETS
from usp_mm.config.arguments import ToolParser
from usp_mm.runtime.console import table_console


def parse_args() -> argparse.Namespace:
    kinds = '\n'.join(f'  {name:13}{kind.description}' for name, kind in KINDS.items())
    targets = '\n'.join(f'  {name:13}{description}' for name, description in TARGETS.items())
    parser = ToolParser(
        description=__doc__,
        epilog=f'--from:\n{kinds}\n\n--to:\n{targets}',
    )
    parser.add_argument('source', metavar='IN', type=Path, help="a checkpoint file, or a folder of diffusers'")
    parser.add_argument('out', metavar='OUT', type=Path, help='a .pth, .pt, .ckpt or .safetensors file, or a folder')
    parser.add_argument(
        '--from', dest='from_', metavar='KIND', help='kind of the input (default: detected from the names of its tensors)'
    )
    parser.add_argument('--to', default='usp_mm', metavar='FORMAT', help='default: %(default)s')
    parser.add_argument(
        '--weights', metavar='ema|model', help='which to take of a file that has both (default: see docs/convert.md)'
    )
    parser.add_argument('--drop', nargs='+', default=(), metavar='PREFIX', help='leave out names that begin so')
    parser.add_argument('--fold-norms', action='store_true', help="fold USP's affine norms into adaLN, for plain DiT and SiT")
    parser.add_argument('--num-heads', type=int, help='for diffusers, of a network that is no preset')
    parser.add_argument('--num-classes', type=int, help='for diffusers, where the label embedding has 1000 rows')
    parser.add_argument('--vae', type=Path, help='for diffusers: folder of an AutoencoderKL to put into the pipeline')
    parser.add_argument('--force', action='store_true', help='replace OUT')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    from rich.table import Table

    from usp_mm.checkpoints import convert

    report = convert(args.pop('source'), out := args.pop('out'), args.pop('to'), **args)
    table = Table('what', 'old name', 'new name', 'tensors')
    for what, old, new, count in report.rows():
        table.add_row(what, old, new, str(count))
    table_console().print(table)
    print(f'{out}: {report}')
