"""Train a small VAE (preset 'tiny' or 'laptop') on folders of images, on two CPU cores.

usp train-vae data/demo/imagenet/train work_dirs/tiny_vae                              # a minute: digits
usp train-vae data/emoji/imagenet/train work_dirs/laptop_vae --vae laptop              # minutes: colours
"""

import argparse
from collections.abc import Callable

from usp_mm.config.arguments import ToolParser
from usp_mm.config.options import LaptopVAETraining, TinyVAETraining

VAES = {'tiny': TinyVAETraining, 'laptop': LaptopVAETraining}


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('data', nargs='+', help='folders of images, searched recursively')
    parser.add_argument('out', help='folder to write, in diffusers format')
    parser.add_argument('--vae', choices=list(VAES), default='tiny', help='preset (default: %(default)s)')
    numbers = {name: vars(config()) for name, config in VAES.items()}
    for name in dict.fromkeys(name for defaults in numbers.values() for name in defaults):
        known = {vae: defaults[name] for vae, defaults in numbers.items() if name in defaults}
        text = 'default for ' + ', '.join(f'{vae}: {value}' for vae, value in known.items())
        kind = type(next(iter(known.values())))
        parser.add_argument(f'--{name.replace("_", "-")}', type=kind, default=argparse.SUPPRESS, help=text)
    args = parser.parse_args()
    for name in vars(args).keys() - {'data', 'out', 'vae'} - numbers[args.vae].keys():
        parser.error(f'--{name.replace("_", "-")} is not an option of --vae {args.vae}')
    return args


def main() -> None:
    args = vars(parse_args())
    from usp_mm.vaes.laptop import train_laptop_vae
    from usp_mm.vaes.tiny import train_tiny_vae
    from usp_mm.vaes.training import VAEReport

    data, out, vae = args.pop('data'), args.pop('out'), args.pop('vae')
    train: dict[str, Callable[..., VAEReport]] = dict(tiny=train_tiny_vae, laptop=train_laptop_vae)
    report = train[vae](data, out, VAES[vae](**args))
    print(f'PSNR {report.psnr:.2f} dB, scaling factor {report.scaling_factor:.4f}, {report.seconds:.0f} s')
