"""`usp COMMAND …`: a module of this package is imported when its command is called."""

import importlib
import sys

from usp_mm.presets import nearest
from usp_mm.runtime.command import run_command
from usp_mm.version import __version__

#: command -> (module of this package, what it does).
COMMANDS = {
    'train': ('train', 'train a config: pretraining, classifiers, segmentors, generators'),
    'test': ('test', 'evaluate a checkpoint as its config says'),
    'cache': ('cache', 'write, check, describe and import caches of VAE latents'),
    'reconstruct': ('reconstruct', 'draw what a pretrained model restores of masked images'),
    'show': ('show', 'draw what an encoder sees: attention maps and principal components'),
    'infer': ('infer', 'classes, features or segmentations of images'),
    'sample': ('sample', 'draw samples of a generator: pictures, or files for evaluators'),
    'app': ('app', 'show models in the browser: restore, generate, classify, find neighbours'),
    'evaluate': ('evaluate', 'score samples: FID, sFID, IS, precision and recall'),
    'likelihood': ('likelihood', 'bits per dimension under a SiT'),
    'probe-layers': ('probe_layers', 'linear probe of every layer of a frozen network'),
    'knn': ('knn', 'nearest-neighbour probe of a frozen network'),
    'cka': ('cka', "compare a generator's blocks with those of the encoder that it started from"),
    'robustness': ('robustness', 'accuracy of a classifier by level of noise'),
    'convergence': ('convergence', 'curves of several runs, and how many times faster each converges'),
    'cost': ('cost', 'time, throughput and GPU-days of runs'),
    'flops': ('flops', 'parameters and FLOPs of a config'),
    'convert': ('convert', 'convert a checkpoint from or to another project'),
    'export': ('export', 'write a model folder for sharing: config, weights, model card'),
    'train-vae': ('train_vae', 'train a small VAE on folders of images'),
    'demo-data': ('demo_data', 'write demo data: digits, crops of photographs, emoji'),
}
_WIDTH = max(map(len, COMMANDS))
USAGE = '\n'.join(
    [
        'usage: usp COMMAND …            (usp COMMAND --help shows its options)',
        '',
        *(f'  {name:{_WIDTH}}  {what}' for name, (_, what) in COMMANDS.items()),
        '',
        f'usp_mm {__version__}. A CONFIG is a file, or the name of one that comes with the package.',
    ]
)


def main() -> None:
    """Entry point of the console script `usp`.

    Raises:
        SystemExit: Always, with the command's exit code; 2 for an unknown command, as in argparse.
    """
    words = sys.argv[1:]
    if not words or words[0] in ('-h', '--help'):
        run_command(lambda: print(USAGE) or (0 if words else 2))
    if words[0] == '--version':
        run_command(lambda: print(__version__))
    if words[0] not in COMMANDS:
        sys.stderr.write(f"usp: unknown command '{words[0]}'{nearest(words[0], COMMANDS)}; usp --help lists them\n")
        sys.exit(2)
    module, _ = COMMANDS[words[0]]
    sys.argv = [f'usp {words[0]}', *words[1:]]
    run_command(importlib.import_module(f'usp_mm.cli.{module}').main)
