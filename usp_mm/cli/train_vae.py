"""Train a small autoencoder (VAE preset 'tiny') on folders of images; about a minute on two CPU cores.

python tools/train_tiny_vae.py data/demo/imagenet/train work_dirs/tiny_vae
"""

import argparse

from usp_mm.options import TinyVAETraining


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='+', help='folders of images, searched recursively')
    parser.add_argument('out', help='folder to write, in diffusers format')
    for name, default in vars(TinyVAETraining()).items():
        parser.add_argument(f'--{name.replace("_", "-")}', type=type(default), default=default, help=f'default {default}')
    return parser.parse_args()


def main() -> None:
    args = vars(parse_args())
    from usp_mm.vaes.tiny import train_tiny_vae

    report = train_tiny_vae(args.pop('data'), args.pop('out'), TinyVAETraining(**args))
    print(f'PSNR {report.psnr:.2f} dB, scaling factor {report.scaling_factor:.4f}, {report.seconds:.0f} s')
