"""Command-line options shared by several tools. Importing this module imports nothing slower than `argparse`."""

from argparse import Action, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from usp_mm.config.options import WEIGHTS
from usp_mm.config.values import parse_value
from usp_mm.renaming.arguments import add_older_option, weights_name


class CfgOptionsAction(Action):
    """Parse KEY=VALUE words as in `usp_mm.config.values`; a word of another form is reported as an argparse error."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in values or ():
            key, equals, text = word.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f"{option_string}: '{word}' is no key=value (a value with spaces is quoted for the shell)")
            try:
                options[key] = parse_value(text)
            except ValueError as error:
                parser.error(f'{option_string} {key}: {error}')
        setattr(namespace, self.dest, options)


class ToolParser(ArgumentParser):
    """An ArgumentParser whose options cannot be abbreviated, and whose description keeps its lines; its subcommands too.

    A misspelt option would otherwise be taken for the beginning of another one.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{'allow_abbrev': False, 'formatter_class': RawDescriptionHelpFormatter, **kwargs})


def add_config_arguments(parser: ArgumentParser) -> None:
    """Add --cfg-options, which means what it does in MMEngine; see `CfgOptionsAction`."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=CfgOptionsAction,
        default={},
        metavar='KEY=VALUE',
        help='settings to override; how values are written: docs/command-line.md',
    )


def add_model_arguments(parser: ArgumentParser, config: str, checkpoint: str = 'its checkpoint') -> None:
    """Add the positional arguments CONFIG and CHECKPOINT, or a model folder for both; see `usp_mm.apis.folder_argument`."""
    parser.add_argument('config', help=f'{config}; or a model folder (of `usp export`), without a checkpoint')
    parser.add_argument('checkpoint', nargs='?', help=checkpoint)


def add_run_arguments(parser: ArgumentParser) -> None:
    """Add --work-dir, --cfg-options and --launcher, which mean what they do in MMEngine."""
    add_config_arguments(parser)
    parser.add_argument('--work-dir', help='where logs, checkpoints and pictures go (default: work_dirs/CONFIG-NAME)')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def run_arguments(args: Namespace) -> dict[str, Any]:
    """The values of the options that `add_run_arguments` adds, by name, without --cfg-options."""
    return dict(work_dir=args.work_dir, launcher=args.launcher, local_rank=args.local_rank)


def add_weights_argument(parser: ArgumentParser, description: str) -> None:
    """Add --weights ema|model and its older name --sample-model ema|orig."""
    parser.add_argument('--weights', type=weights_name, choices=WEIGHTS, help=description)
    add_older_option(parser, '--sample-model', '--weights', type=weights_name, choices=WEIGHTS)


def add_probe_arguments(parser: ArgumentParser) -> None:
    """Add the options of usp probe-layers and usp knn for the model, the data and the output folder."""
    add_model_arguments(
        parser, 'config of pretraining, classification or generation', 'its checkpoint, or official weights of an encoder'
    )
    parser.add_argument('--data', type=Path, metavar='ROOT', help='in place of --train ROOT/train --val ROOT/val')
    parser.add_argument('--train', type=Path, metavar='DIR', help='a folder of class folders with images, or a latent cache')
    parser.add_argument('--val', type=Path, metavar='DIR', help='the same for the samples that are classified')
    parser.add_argument(
        '--t', type=float, help='time of a DiT, 0 (clean) … 999, or of a SiT, 0 (noise) … 1 (clean) (default: clean)'
    )
    add_weights_argument(parser, 'weights of a DiT or SiT: averaged (default), or as trained, which the official probe uses')
    parser.add_argument('--seed', type=int, default=0, help='seed of all that is random, such as the noise of --t (default 0)')
    parser.add_argument(
        '--labels-per-class', type=int, metavar='N', help='train on N samples of each class, chosen by --seed (default: on all)'
    )
    parser.add_argument('--workers', type=int, default=0, help='processes that load data (default 0: this one)')
    parser.add_argument('--device', help='default: the GPU, else the CPU')
    parser.add_argument('--work-dir', type=Path, metavar='DIR', help='where to write (default: below work_dirs/CONFIG-NAME)')
    add_config_arguments(parser)
