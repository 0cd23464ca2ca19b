"""Write a model folder: config, weights, what is known of them, and a model card. Whole or absent.

usp export CONFIG work_dirs/RUN/epoch_800.pth my-encoder
usp export CONFIG work_dirs/RUN/iter_400000.pth my-generator --weights ema --picture samples.png --license cc-by-nc-4.0
usp export work_dirs/RUN/iter_400000.pth my-generator          # with the config that the checkpoint holds
usp export https://dl.fbaipublicfiles.com/DiT/models/DiT-XL-2-256x256.pt dit-xl --kind dit

`usp_mm.from_pretrained('my-encoder')` loads it, and `huggingface_hub` publishes it: `hf upload NAME my-encoder`.
"""

import argparse
from pathlib import Path

from usp_mm.config.arguments import ToolParser, add_config_arguments
from usp_mm.config.values import parse_value


def parse_args() -> argparse.Namespace:
    parser = ToolParser(
        description=__doc__,
        usage='usp export [CONFIG] CHECKPOINT OUT [options]',
    )
    parser.add_argument(
        'words', nargs='+', metavar='[CONFIG] CHECKPOINT OUT', help='config, checkpoint (file or address), folder to write'
    )
    parser.add_argument(
        '--weights', choices=['ema', 'model', 'both'], help="weights of a generator's checkpoint to export (default: ema)"
    )
    parser.add_argument('--kind', help="kind of another project's file, if its names leave it open: dit, usp-dit, sit, usp-sit")
    parser.add_argument('--vae', help="a preset or a path, in place of the config's")
    parser.add_argument(
        '--include-vae', action=argparse.BooleanOptionalAction, help='copy the VAE too (default: only that of preset tiny)'
    )
    parser.add_argument(
        '--diffusers', action='store_true', help='write a pipeline of diffusers instead: DiT and SiT, with the VAE'
    )
    parser.add_argument('--picture', type=Path, metavar='FILE', help='for the model card')
    parser.add_argument('--license', help="license of the weights, as the hub names it: 'cc-by-nc-4.0'")
    parser.add_argument('--name', metavar='OWNER/NAME', help="id on the hub, for the model card's example")
    parser.add_argument('--number', nargs='+', default=[], metavar='WHAT=VALUE', help='measured, for the model card')
    add_config_arguments(parser)
    args = parser.parse_args()
    if len(args.words) not in (2, 3):
        parser.error(f'give [CONFIG] CHECKPOINT OUT, got {len(args.words)} words')
    *config, args.checkpoint, out = args.words
    args.config, args.out = (config or [None])[0], Path(out)
    of_a_card = [name for name in ('picture', 'license', 'name', 'number') if getattr(args, name)]
    if args.diffusers and of_a_card:
        parser.error(f'--{of_a_card[0]} is of a model card, which --diffusers does not write')
    for word in args.number:
        if not word.partition('=')[2] or not word.partition('=')[0]:
            parser.error(f"--number: '{word}' is no WHAT=VALUE")
    return args


def main() -> None:
    args = parse_args()
    from usp_mm.apis.generator import Generator
    from usp_mm.apis.model_folder import check_absent
    from usp_mm.apis.pretrained import from_pretrained

    check_absent(args.out)
    found = from_pretrained(
        args.checkpoint, config=args.config, weights=args.weights, kind=args.kind, vae=args.vae,
        cfg_options=args.cfg_options, device='cpu', load_vae=args.diffusers and args.include_vae is not False,
    )  # fmt: skip
    if args.diffusers:
        if not isinstance(found, Generator):
            raise ValueError(f"--diffusers: '{args.checkpoint}' is no DiT or SiT, and diffusers has pipelines only for these")
        found.save_pipeline(args.out, include_vae=args.include_vae is not False)
        print(f'{args.out}: {", ".join(sorted(path.name for path in args.out.iterdir()))}')
        return
    numbers = {what: parse_value(value) for what, _, value in (word.partition('=') for word in args.number)}
    found.save_pretrained(
        args.out, repo_id=args.name, numbers=numbers, picture=args.picture, license=args.license, include_vae=args.include_vae
    )
    print(f'{args.out}: {", ".join(sorted(path.name for path in args.out.iterdir()))}')
    print(f"usp_mm.from_pretrained('{args.out}')")
