"""Record the golden numbers of tests/data/golden from the official research code.

python dev/golden/record.py REF OUT                     # the files of the tests
python dev/golden/record.py REF OUT --salt 1 --wide     # other weights, inputs and sizes: numbers to hold out

REF holds checkouts named USP, DiT, SiT, REPA, LightningDiT, guided-diffusion and mae, as tests/data/golden/README.md says.
Needs torch, timm, torchdiffeq and scipy; runs on the CPU, in float32, with one thread.
"""

import argparse
from pathlib import Path

import generation
import metrics
import pretraining
import torch
from recipe import Recorder


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('ref', type=Path, help='folder with the checkouts')
    parser.add_argument('out', type=Path, help='folder for the files; the tests read tests/data/golden')
    parser.add_argument('--salt', type=int, default=0, help='added to every seed')
    parser.add_argument('--wide', action='store_true', help='width 64, 3 blocks, 4 heads, 7 classes')
    return parser.parse_args()


def declare_operators() -> torch.library.Library:
    """Let timm import a torchvision without compiled operators; as long as the result is held."""
    library = torch.library.Library('torchvision', 'DEF')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    return library


def main() -> None:
    args = parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    held = declare_operators()
    rec = Recorder(args.ref, args.out, args.salt, args.wide)
    pretrained = pretraining.record(rec)
    generation.record(rec, pretrained)
    metrics.record(rec)
    rec.save_names()
    del held


if __name__ == '__main__':
    main()
