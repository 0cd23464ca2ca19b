"""Fine-tuning from the pretrained encoder and from random weights, with the same seed, data, schedule and number of steps."""

import argparse

from usp_mm.own_pictures.stages import Stages, mean_of

from . import probe

CONFIG = 'configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py'
WARMUP = 1  # epochs
NEEDS, inputs = probe.NEEDS, probe.inputs


def run(stages: Stages, args: argparse.Namespace) -> dict:
    return dict(runs=[probe.compare(stages, 'finetune', CONFIG, args.finetune_epochs, seed) for seed in range(args.seeds)])


def rows(result: dict) -> dict[str, str]:
    return {
        f'fine-tuning, {name} start': mean_of([run['accuracy'][start] for run in result['runs']], 2) + ' %'
        for start, name in probe.NAMES.items()
    }
