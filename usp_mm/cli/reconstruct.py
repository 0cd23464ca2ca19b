"""Draw what a pretrained USP restores of masked images: original, masked, restored, and as the VAE alone reproduces them.

usp reconstruct CONFIG CHECKPOINT --images data/imagenet/val/n01440764 --out restoration.png
"""

import argparse
from pathlib import Path

from usp_mm.config.arguments import ToolParser, add_config_arguments, add_model_arguments
from usp_mm.fileio.outputs import check_counts, check_file, check_folder

#: What PIL writes of an RGB picture of any size.
PICTURES = ('BMP', 'GIF', 'JPEG', 'PDF', 'PNG', 'PPM', 'TIFF', 'WEBP')
#: What is drawn -> how the picture's title calls it.
PREDICTIONS = {'denormalized': 'on the scale of the true patches', 'raw': 'raw predictions, not denormalized'}


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, 'pretraining config', 'its checkpoint, or official weights')
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
    parser.add_argument(
        '--prediction',
        choices=PREDICTIONS,
        default='denormalized',
        help='denormalized: on the scale of the true patches; raw: as the network gives it (official pictures of USP)',
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the masks')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    check_counts(args, 'num')
    check_file(args.out, '--out', sorted(suffix for suffix, name in Image.registered_extensions().items() if name in PICTURES))
    check_folder(args.tensorboard, '--tensorboard')
    from usp_mm.apis import load_algorithm, restore_images
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.fileio.atomic import write_whole
    from usp_mm.images import find_images, titled
    from usp_mm.models.restoration_picture import column_titles

    take_folder(args)
    images = find_images(args.images, args.num)
    model = load_algorithm(args.config, args.checkpoint, cfg_options=args.cfg_options)
    denormalize = args.prediction == 'denormalized'
    picture = restore_images(model, images, args.composite, args.seed, denormalize)
    picture = titled(picture, column_titles(from_images=True, with_vae=model.data_preprocessor.codec.stride > 1))
    title = f'original, masked, restored ({PREDICTIONS[args.prediction]}), VAE alone'
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    notes = PngInfo()
    notes.add_text('Title', title)
    with write_whole(Path(args.out)) as file:
        Image.fromarray(picture).save(file, format=Image.registered_extensions()[Path(args.out).suffix.lower()], pnginfo=notes)
    if args.tensorboard:
        from mmengine.visualization import Visualizer

        visualizer = Visualizer(vis_backends=[dict(type='TensorboardVisBackend')], save_dir=args.tensorboard)
        visualizer.add_image('restoration', picture)
        visualizer.close()
    print(f'{args.out}: {len(images)} rows of {title}')
