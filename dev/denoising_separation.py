"""Show that the denoising loss tells two checkpoints of one run apart that are a small share of its steps apart.

python dev/denoising_separation.py work_dirs/quickstart --model sit      (after tools/quickstart.sh has made VAE and latents)

For each seed, a small generator is trained on the digits, and the denoising loss of its averaged weights is measured at the end
and `--share` of the steps before. Printed are the mean of the differences over seeds, its standard error, and Student's t.
"""

import argparse
import statistics
from pathlib import Path

import usp_mm  # noqa: F401  (before torch)

# isort: split

from scipy.stats import ttest_1samp

from usp_mm.apis import load_generator
from usp_mm.cli.denoising_loss import measure
from usp_mm.evaluation import DenoisingLoss
from usp_mm.fileio.atomic import write_json
from usp_mm.own_pictures.stages import Stages, latent_options, vae_options
from usp_mm.probing.data import open_data

CONFIG = 'configs/{0}/{0}-tiny-p2_denoising-loss_1xb64-2k_digits.py'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='with the VAE in vae and the latent caches in latents/train and latents/val')
    parser.add_argument('--model', choices=['sit', 'dit'], default='sit')
    parser.add_argument('--seeds', type=int, default=3, help='2 or more (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--share', type=float, default=0.02, help='of the steps, between checkpoints (default: %(default)s)')
    parser.add_argument('--out', type=Path, help='folder of the runs (default: FOLDER/separation)')
    return parser.parse_args()


def train(args: argparse.Namespace, stages: Stages, seed: int, apart: int) -> list[Path]:
    """Train with one seed; returns the last two checkpoints."""
    config, folder = CONFIG.format(args.model), stages.work_dir / f'{args.model}-seed{seed}'
    options = [
        *vae_options(args.folder),
        *latent_options(args.folder, 'train'),
        f'randomness.seed={seed}',
        f'train_dataloader.batch_size={args.batch_size}',
        f'train_cfg.max_iters={args.steps}',
        f'default_hooks.checkpoint.interval={apart}',
        f'default_hooks.visualization.interval={args.steps + 1}',
    ]
    command = ['tools/train.py', config, '--work-dir', folder, '--overwrite', '--no-validate', '--cfg-options', *options]
    stages.run(f'{args.model} seed {seed}', *command)
    return [folder / f'iter_{step}.pth' for step in (args.steps - apart, args.steps)]


def loss_of(args: argparse.Namespace, checkpoint: Path) -> float:
    vae = {'model.data_preprocessor.vae.path': str(args.folder / 'vae')}
    loaded = load_generator(CONFIG.format(args.model), checkpoint, cfg_options=vae)
    assert loaded.config is not None
    data = open_data(loaded.config, args.folder / 'latents' / 'val', training=False)
    return measure(DenoisingLoss(), loaded, data, batch_size=64)['denoising_loss']


def summary(earlier: list[float], last: list[float]) -> dict[str, float]:
    """Mean over seeds of earlier - last, its standard error, Student's t and the two-sided p."""
    differences = [a - b for a, b in zip(earlier, last, strict=True)]
    test = ttest_1samp(differences, 0.0)
    return dict(
        mean=statistics.mean(differences),
        standard_error=statistics.stdev(differences) / len(differences) ** 0.5,
        t=float(test.statistic),
        p=float(test.pvalue),
        deviation_over_seeds=statistics.stdev(last),
    )


def main() -> None:
    args = parse_args()
    apart = round(args.share * args.steps)
    if args.seeds < 2 or apart < 1 or args.steps % apart:
        raise SystemExit('give 2 seeds or more, and a share of the steps that divides them')
    stages = Stages(args.out or args.folder / 'separation')
    pairs = [train(args, stages, seed, apart) for seed in range(args.seeds)]
    earlier, last = ([loss_of(args, pair[i]) for pair in pairs] for i in (0, 1))
    settings = dict(steps=args.steps, batch_size=args.batch_size, apart=apart, earlier=earlier, last=last)
    found = {**settings, **summary(earlier, last)}
    write_json(stages.work_dir / f'{args.model}.json', found)
    for seed, values in enumerate(zip(earlier, last, strict=True)):
        print(f'seed {seed}: {values[0]:.6f} at {args.steps - apart:,}, {values[1]:.6f} at {args.steps:,} steps')
    print(
        f'difference {found["mean"]:.6f} ± {found["standard_error"]:.6f} (standard error over {args.seeds} seeds), '
        f't = {found["t"]:.1f}, p = {found["p"]:.4f}; the last values deviate by {found["deviation_over_seeds"]:.6f} over seeds'
    )


if __name__ == '__main__':
    main()
