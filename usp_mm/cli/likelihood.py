"""Bits per dimension of the latents of data under a SiT, by the change of variables along its ODE.

usp likelihood CONFIG CHECKPOINT --data data/imagenet_latents/val --num 1000
usp likelihood CONFIG CHECKPOINT --data data/imagenet/val --num 1000 --method rk4 --steps 50 --out likelihood.json

Each sample is scored with its own class and without guidance, on the mode of its posterior. The density is that of the scaled
latents: it compares generators on the same VAE, not with likelihoods of pixels.
"""

import argparse
from pathlib import Path

from usp_mm.config.arguments import ToolParser, add_config_arguments, add_model_arguments, add_weights_argument
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_file


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    add_model_arguments(parser, 'config of a SiT')
    parser.add_argument('--data', type=Path, required=True, metavar='DIR', help='class folders with images, or a latent cache')
    parser.add_argument('--num', type=int, metavar='N', help='samples, spread evenly over the data (default: all)')
    parser.add_argument('--probes', type=int, default=1, help='random vectors a sample for the divergence (default 1)')
    parser.add_argument('--method', default='dopri5', help="method of the ODE, one of ODESampler's (default: %(default)s)")
    parser.add_argument(
        '--steps', type=int, default=50, metavar='K', help='points of the time grid of fixed steps (default 50)'
    )
    parser.add_argument('--seed', type=int, default=0, help='seed of the random vectors (default 0)')
    parser.add_argument('--batch-size', type=int, default=16, help='samples at a time (default 16)')
    add_weights_argument(parser, "averaged, or as trained (default: the config's `sample_model`, ema)")
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    parser.add_argument('--out', type=Path, metavar='FILE.json', help='write all values to this file')
    add_config_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    check_file(args.out, '--out', ('.json',), make_folder=False)
    from mmengine.logging import MMLogger

    from usp_mm.analysis.likelihood import LikelihoodSettings, check_flow, measure_likelihood
    from usp_mm.apis.folder_argument import take_folder
    from usp_mm.engine.starting.loading import load_config
    from usp_mm.models import ODESampler
    from usp_mm.probing.data import open_data
    from usp_mm.sampling.draw import build_generator

    take_folder(args)
    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    MMLogger.get_instance('likelihood')
    settings = LikelihoodSettings(args.num, args.probes, args.batch_size, args.seed)
    sampler = ODESampler(args.method, args.steps)
    data = open_data(cfg, args.data, training=False)
    model = build_generator(cfg, args.checkpoint, args.device, args.weights).model
    check_flow(model)
    found = measure_likelihood(model, data, sampler, settings, args.weights)
    if args.out is not None:
        write_json(args.out, dict(config=args.config, checkpoint=args.checkpoint, data=str(args.data), **found))
    error = '' if found['standard_error'] is None else f' ± {found["standard_error"]:.4f}'
    print(f'{found["mean"]:.4f}{error} bits per dimension of {found["num"]} latents of {found["dims"]} numbers')
