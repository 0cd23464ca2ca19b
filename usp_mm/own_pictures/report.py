"""What a training on own pictures prints: its plan and time beforehand, results and what to try next at the end."""

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from usp_mm.fileio.atomic import read_json, write_json

from .parts import GENERATE, GUIDANCE, PARTS, PRETRAIN
from .plan import Plan
from .record import Record
from .scan import Scan
from .stages import console


def show_plan(plan: Plan, seconds: dict[str, float], minutes: float) -> None:
    """Print the plan and the estimated time of each command.

    Raises:
        ValueError: The estimate is above `minutes`.
    """
    from rich.table import Table

    table = Table(title='plan', show_header=False)
    for name, value in asdict(plan).items():
        if value is None:  # the VAE's path, if it has none
            continue
        table.add_row(name, f'{value:,}' if isinstance(value, int) else str(value))
    console.print(table)
    total = sum(seconds.values()) / 60
    parts = ', '.join(f'{name} {value / 60:.1f}' for name, value in seconds.items())
    console.print(f'estimated time: {total:.0f} minutes ({parts}); longer on a busy machine', highlight=False, soft_wrap=True)
    if total > minutes:
        raise ValueError(
            f'the training is estimated to take {total:,.0f} minutes, more than --minutes {minutes:g}: give --minutes '
            f'{total * 1.2:.0f} to start it all the same, or less --epochs, --steps or --img-size'
        )


def finish_report(out: Path, plan: Plan, scan: Scan) -> None:
    """Draw the curves, write summary.json and print what to try next."""
    from .curves import draw_curves

    record, curves = Record(out), out / 'curves.png'
    results = {name: found for name in ('pictures', *PARTS) if (found := record.result(name)) is not None}
    drawn = draw_curves(out, curves)
    summary: dict[str, Any] = dict(folder=str(scan.root), left_out=scan.left_out, plan=asdict(plan), **results)
    write_json(out / 'summary.json', dict(summary, curves=str(curves) if drawn else None))
    show_end(out, 'done')


def is_reported(out: Path) -> bool:
    """Whether summary.json holds the results of all finished parts."""
    summary, record = read_json(out / 'summary.json') or {}, Record(out)
    return bool(summary) and all(name in summary for name in PARTS if record.result(name) is not None)


def show_end(out: Path, what: str) -> None:
    """Print the numbers, the files and what to try next."""
    summary = read_json(out / 'summary.json') or {}
    console.print(f'\n{out}: {what}', markup=False, highlight=False, soft_wrap=True)
    if (psnr := summary.get('vae', {}).get('psnr')) is not None:
        console.print(f'  VAE {psnr:.1f} dB on held-out pictures', highlight=False)
    if 'linear' in (found := summary.get('probe', {})):
        numbers = f'linear probe {found["linear"]:.1f} %, {found["k"]} nearest neighbours {found["knn"]:.1f} %'
        console.print(f'  {numbers}, by chance {found["chance"]:.1f} %, on {found["pictures"]} pictures', highlight=False)
    for name in ('restoration.png', 'samples.png', 'curves.png', 'encoder', 'generator', 'summary.json'):
        if (out / name).exists():
            console.print(f'  {out / name}', markup=False, highlight=False, soft_wrap=True)
    for line in next_commands(out, summary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def next_commands(out: Path, summary: dict[str, Any]) -> list[str]:
    """What to try next, after the parts that are finished."""
    lines: list[list[object]] = []
    if 'pretrain' in summary:
        encode = f'usp_mm.from_pretrained({str(out / "encoder")!r}).encode([{str(_some_picture(out))!r}])'
        lines.append(['python', '-c', f'import usp_mm; print({encode}.shape)'])
        model: list[object] = [out / 'pretrain' / f'{PRETRAIN}.py', summary['pretrain']['checkpoint']]
        lines.append(['usp', 'reconstruct', *model, '--images', out / 'pictures' / 'val', '--seed', 1, '--out', 'restored.png'])
    if 'generate' in summary:
        model = [out / 'generate' / f'{GENERATE}.py', summary['generate']['checkpoint']]
        guidance = ['--guidance', GUIDANCE] if len(summary['pictures']['classes']) > 1 else []
        lines.append(['usp', 'sample', *model, '--classes', 'label=0', '--per-class', 16, *guidance, '--grid', 'more.png'])
    return ['\nto try next:', *(f'  {shlex.join(map(str, words))}' for words in lines)] if lines else []


def _some_picture(out: Path) -> Path:
    return min((out / 'pictures' / 'val').rglob('*.png'))
