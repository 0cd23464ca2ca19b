"""Draw what a pretrained USP restores of masked images: original, masked, restored, the VAE alone.

python tools/reconstruct.py CONFIG CHECKPOINT --images data/imagenet/val/n01440764 --out restoration.png
"""

import usp_mm  # noqa: F401  (before torch: how threads wait, and upstream patches)

# isort: split

import argparse
from pathlib import Path

from mmengine.visualization import Visualizer
from PIL import Image

from usp_mm.cli import run_command
from usp_mm.engine.launch import add_config_arguments, load_config
from usp_mm.files import find_images


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='pretraining config')
    parser.add_argument('checkpoint', help='its checkpoint, or official weights')
    parser.add_argument('--images', nargs='+', required=True, help='image files, or folders searched recursively')
    parser.add_argument('--num', type=int, default=8, help='images to draw, spread evenly over what was found (default 8)')
    parser.add_argument('--out', default='restoration.png', help='picture to write (default restoration.png)')
    parser.add_argument('--tensorboard', help='also log the picture to TensorBoard in this folder')
    parser.add_argument(
        '--composite',
        choices=['predicted', 'visible'],
        default='predicted',
        help='predicted: decode the prediction everywhere (official for a VAE); '
        'visible: keep the true latents where they were visible (official for pixels)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the masks')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    images = find_images(args.images, args.num)
    cfg = load_config(args, initialises=False)
    from usp_mm.apis import load_algorithm, restore_images

    picture = restore_images(load_algorithm(cfg, args.checkpoint), images, args.composite, args.seed)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.out)
    if args.tensorboard:
        visualizer = Visualizer(vis_backends=[dict(type='TensorboardVisBackend')], save_dir=args.tensorboard)
        visualizer.add_image('restoration', picture)
        visualizer.close()
    print(f'{args.out}: {len(images)} rows of original, masked, restored, VAE alone')


if __name__ == '__main__':
    run_command(main)
