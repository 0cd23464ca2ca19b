"""Draw what an encoder sees of images: where its attention looks, and the principal components of its patch tokens.

usp show MODEL_FOLDER cat.jpg dog.jpg --out work_dirs/sight
usp show CONFIG CHECKPOINT data/imagenet/val --num 6 --pca-layer 8 --out work_dirs/sight

A row for each image: the image, the attention of the class token in one block (mean of all heads, then each head), and the
first three principal components of a block's patch tokens as red, green and blue, fitted over all images of the picture.
MODEL_FOLDER can also be a checkpoint that says what it is: one of this package, or another project's.
Writes sight.png and sight.json.
"""

import argparse
from pathlib import Path

from usp_mm.config.arguments import ToolParser, add_config_arguments, add_model_arguments
from usp_mm.fileio.atomic import write_json, write_whole
from usp_mm.fileio.outputs import check_counts, check_folder


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, 'config of pretraining or of a classifier')
    parser.add_argument('images', nargs='+', help='image files, or folders searched recursively')
    parser.add_argument('--out', type=Path, required=True, help='folder to write to')
    parser.add_argument('--num', type=int, default=8, help='images to draw, spread evenly over what was found (default 8)')
    layer = 'from 1, or from the end with -1 for the last'
    parser.add_argument('--layer', type=int, default=-1, metavar='K', help=f'block whose attention is drawn, {layer} (default)')
    parser.add_argument('--pca-layer', type=int, metavar='K', help='block whose tokens are drawn (default: that of --layer)')
    parser.add_argument(
        '--query',
        choices=['cls', 'patches'],
        default='cls',
        help="cls: the class token's attention (default); patches: the mean attention that a patch receives",
    )
    parser.add_argument('--batch-size', type=int, default=32, help='images at a time (default: %(default)s)')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_counts(args, 'num', 'batch_size')
    check_folder(args.out, '--out')
    from PIL import Image

    from usp_mm.analysis.sight import look
    from usp_mm.apis.folder_argument import take_model
    from usp_mm.apis.inference import check_images
    from usp_mm.apis.pretrained import from_pretrained
    from usp_mm.images import find_images

    source, config = take_model(args, images='images')
    paths = find_images(args.images, args.num)
    check_images(paths)
    model = from_pretrained(source, config=config, device=args.device, cfg_options=args.cfg_options)
    sight = look(model, paths, args.layer, args.pca_layer, args.query, args.batch_size)
    args.out.mkdir(parents=True, exist_ok=True)
    with write_whole(args.out / 'sight.png') as file:
        Image.fromarray(sight.picture).save(file, format='PNG')
    write_json(args.out / 'sight.json', dict(model=str(source), **sight.facts))
    print(f'{args.out}/sight.png and sight.json: {len(paths)} images')
