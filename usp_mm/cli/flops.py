"""Parameters and FLOPs of any config, and what its training costs and holds, without weights or data (the meta device).

usp flops configs/dit/dit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py
usp flops CONFIG --cfg-options model.backbone.arch=large --json cost.json

A multiplication and an addition are two FLOPs; matrix products and convolutions count. The VAE, which is not trained, and
REPA's teacher are listed apart. GPU-hours are those of the training's FLOPs at --utilisation of --peak.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from usp_mm.config.arguments import ToolParser, add_config_arguments
from usp_mm.config.options import H100_BF16, UTILISATION
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_file
from usp_mm.runtime.console import table_console

if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('config', help='config file')
    add_config_arguments(parser)
    parser.add_argument('--peak', type=float, default=H100_BF16 / 1e12, help="the GPU's TFLOP/s (default: %(default)s, H100)")
    parser.add_argument('--utilisation', type=float, default=UTILISATION, help='share of it (default: %(default)s)')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers there too')
    return parser.parse_args()


def number(value: float) -> str:
    """Format a number with a unit: 130.5 M, 19.2 G."""
    for unit, size in (('E', 1e18), ('P', 1e15), ('T', 1e12), ('G', 1e9), ('M', 1e6), ('k', 1e3)):
        if value >= size:
            return f'{value / size:.4g} {unit}'
    return f'{value:.4g}'


def cost_rows(cost: dict[str, Any]) -> list[tuple[str, ...]]:
    """Rows of (part, parameters, trainable parameters, forward FLOPs, FLOPs per training image)."""
    network, vae, teacher = cost['network'], cost['vae'], cost['teacher']
    lines = [('network', *(number(network[key]) for key in ('parameters', 'trainable', 'forward', 'train')))]
    if vae:
        mode = 'trained' if vae['trained'] else 'online' if vae['online'] else 'cached'
        lines.append(
            (f'VAE {vae["name"]}, encoder ({mode})', number(vae['parameters']), '', number(vae['encode']), number(vae['train']))
        )
        lines.append((f'VAE {vae["name"]}, decoder', '', '', number(vae['decode']), ''))
    if teacher:
        mode, projector = 'online' if teacher['online'] else 'cached', teacher['projector']
        costs = number(teacher['forward']), number(teacher['train'])
        lines.append((f'teacher {teacher["name"]} ({mode})', number(teacher['parameters']), '', *costs))
        own = number(projector['parameters'])
        lines.append(('projector to the teacher', own, own, number(projector['train'] / 3), number(projector['train'])))
    return lines


def totals(cost: dict[str, Any], hours: float | None) -> list[str]:
    lines = [f'optimizer step of {cost["batch"]:,} images: {number(cost["step"])}FLOP']
    if hours is not None:
        lines.append(f'training, {cost["images"]:,} images: {number(cost["total"])}FLOP, {hours:,.3g} GPU-hours')
    else:
        lines.append("training: the number of images is known only for 'data/imagenet' and its caches")
    if cost['sample']:
        lines.append(
            f'a sample, {cost["sample"]["calls"]} network calls and the decoder: {number(cost["sample"]["total"])}FLOP'
        )
    return lines


def memory(cfg: 'Config') -> tuple[dict[str, int] | None, str]:
    """Bytes of `training_memory` on each process, if it can estimate them, and a line that says them, or why not."""
    if cfg.model.type != 'USP' and 'denoiser' not in cfg.model:
        return None, 'memory of a training: estimated for pretraining and generators alone'
    from usp_mm.analysis.memory import training_memory

    try:
        found = training_memory(cfg)
    except ValueError as error:
        return None, f'memory of a training: {error}'
    total, activations = (found[key] / 2**30 for key in ('total', 'activations'))
    return found, (
        f'memory of each process: {total:.1f} GiB, of which {activations:.1f} are activations of '
        f'{cfg.train_dataloader.batch_size} images; without a VAE or teacher that runs, and what CUDA and operations take'
    )


def main() -> None:
    args = parse_args()
    check_file(args.json, '--json')
    if not (args.peak > 0 and 0 < args.utilisation <= 1):
        raise ValueError(f'--peak {args.peak} must be positive, and --utilisation {args.utilisation} in (0, 1]')
    from rich.table import Table

    from usp_mm.analysis.complexity import complexity, gpu_hours
    from usp_mm.engine.starting.loading import load_config

    cfg = load_config(args.config, args.cfg_options, initialises=False, evaluates=False)
    cost, (held, of_memory) = complexity(cfg), memory(cfg)
    hours = None if cost['total'] is None else gpu_hours(cost['total'], args.peak * 1e12, args.utilisation)
    table = Table('part', title=f'{args.config}, {cost["model"]}', caption='a multiply-add is 2 FLOPs')
    for name in ('parameters', 'trained', 'FLOPs, forward', 'FLOPs, training image'):
        table.add_column(name, justify='right')
    for line in cost_rows(cost):
        table.add_row(*line)
    console = table_console()
    console.print(table)
    console.print('\n'.join([*totals(cost, hours), of_memory]), highlight=False)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        assumed = dict(peak=args.peak * 1e12, utilisation=args.utilisation)
        write_json(
            args.json, dict(config=args.config, flops_per_multiply_add=2, **cost, memory=held, gpu_hours=hours, **assumed)
        )
