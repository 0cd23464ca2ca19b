"""How well encoders separate classes with few labels: USP against a pixel MAE of the same size and steps, and random weights.

python dev/few_labels.py                                   # all of it
python dev/few_labels.py --data digits --scores probe,k-NN
python dev/few_labels.py --small --work-dir work_dirs/try  # in a minute, to see that it works: the numbers mean nothing

The protocol stands in docs/few-labels.md and was fixed before the first run: digits and emoji; arms USP, pixel MAE, and random
weights on latents and on pixels; seeds 0, 1, 2; 1, 2, 5, 10 and 50 labels a class; linear probe and k-NN on ten draws of labels
for each seed, fine-tuning on one. Everything runs in this process, one run after another; set OMP_NUM_THREADS=1 for the CPU
time of one thread. What an earlier call finished is kept: pictures, VAE, caches, pretrained encoders and scores.

Writes runs.csv (every run), summary.json (the same with CPU seconds and hardware), table.md and curves.png into the work
folder.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from usp_mm.fileio.atomic import write_json
from usp_mm.presets import lookup
from usp_mm.runtime.command import run_command

NAMES, SCORES = ('digits', 'emoji'), ('probe', 'k-NN', 'fine-tuning')
NUMBERS, SEEDS, DRAWS = [1, 2, 5, 10, 50], 3, 10


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/few-labels'), help='default: %(default)s')
    parser.add_argument('--data', default=','.join(NAMES), metavar='NAME,…', help='default: %(default)s')
    parser.add_argument('--scores', default=','.join(SCORES), metavar='SCORE,…', help='default: %(default)s')
    parser.add_argument('--seeds', type=int, default=SEEDS, help='how many, from 0 (default: %(default)s)')
    parser.add_argument('--small', action='store_true', help='two epochs, two steps, one seed and two numbers of labels')
    args = parser.parse_args()
    for option, valid in (('data', NAMES), ('scores', SCORES)):
        words = [word.strip() for word in getattr(args, option).split(',')]
        try:
            for word in words:
                lookup(dict.fromkeys(valid), word, option)
        except ValueError as error:
            parser.error(f'--{option}: {error}')
        setattr(args, option, [name for name in valid if name in words])
    if args.seeds < 1:
        parser.error(f'--seeds {args.seeds} must be at least 1')
    return args


class Record:
    """One file for each arm and seed with its rows and CPU seconds; what is in it is not measured again."""

    def __init__(self, folder: Path, small: bool) -> None:
        self.path, self.small = folder / 'scores.json', small
        self.content: dict[str, Any] = dict(small=small, rows=[], cpu_seconds={})
        if self.path.is_file():
            self.content = json.loads(self.path.read_text())
            if self.content['small'] != small:
                raise ValueError(
                    f"'{self.path}' is of a run {'with' if not small else 'without'} --small: name another --work-dir"
                )

    def has(self, score: str, per_class: int) -> bool:
        return any((row['score'], row['labels_per_class']) == (score, per_class) for row in self.content['rows'])

    def add(self, rows: list[dict[str, Any]], name: str, seconds: float) -> None:
        self.content['rows'] += rows
        self.content['cpu_seconds'][name] = seconds
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.content)


def score_arm(inputs: Any, arm: str, seed: int, args: argparse.Namespace, numbers: list[int]) -> Record:
    """Pretrain an arm and measure what is asked for and not measured yet."""
    from few_labels_parts.arms import arm_folder, cpu_time, pretrained
    from few_labels_parts.scores import FINETUNE_STEPS, features, finetune, frozen_scores

    folder, seconds = arm_folder(inputs, arm, seed), dict[str, float]()
    record = Record(folder, args.small)
    cfg, checkpoint, spent = pretrained(inputs, arm, seed)
    if spent:
        record.add([], 'pretraining', spent)
    draws, steps = (1, 2) if args.small else (DRAWS, FINETUNE_STEPS)
    if {'probe', 'k-NN'} & set(args.scores) and not record.has('probe', numbers[-1]):
        with cpu_time(seconds, 'probe'):
            rows = frozen_scores(*features(inputs, cfg, arm, checkpoint), seed, numbers, draws)
        record.add(rows, 'features, probe and k-NN', seconds['probe'])
    for number in numbers if 'fine-tuning' in args.scores else []:
        if not record.has('fine-tuning', number):
            with cpu_time(seconds, 'finetune'):
                row = finetune(inputs, arm, checkpoint, seed, number, steps, folder / f'finetune-{number}')
            record.add([row], f'fine-tuning, {number}', seconds['finetune'])
    return record


def main() -> None:
    args = parse_args()
    import torch
    from few_labels_parts.arms import ARMS, DATA, Inputs, code_version, shortened
    from few_labels_parts.report import table, write_report

    from usp_mm.runtime.processor import processor_name

    numbers, seeds = ([1, 2], 1) if args.small else (NUMBERS, args.seeds)
    rows: list[dict[str, Any]] = []
    seconds: dict[str, Any] = {}
    facts: dict[str, Any] = dict(small=args.small, cpu=processor_name(), threads=os.environ.get('OMP_NUM_THREADS', 'all'))
    facts |= dict(torch=torch.__version__, commit=code_version())
    for name in args.data:
        data = shortened(DATA[name]) if args.small else DATA[name]
        inputs = Inputs(name, data, args.work_dir / name)
        inputs.make()
        seconds[name] = dict(inputs=inputs.spent())
        for seed in range(seeds):
            for arm in ARMS:
                record = score_arm(inputs, arm, seed, args, numbers)
                rows += [dict(row, data=name, arm=arm, seed=seed) for row in record.content['rows']]
                seconds[name][f'{arm}, seed {seed}'] = record.content['cpu_seconds']
                write_report(args.work_dir, rows, args.data, numbers, dict(facts, cpu_seconds=seconds))
    print(table(rows, args.data, numbers))
    print(f'{args.work_dir}/runs.csv, summary.json, table.md, curves.png')


if __name__ == '__main__':
    run_command(main)
