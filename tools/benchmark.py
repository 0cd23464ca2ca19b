#!/usr/bin/env python
"""Measure one part of the package: `python tools/benchmark.py cache`.

Every module of `tools/benchmarks` is a sub-command. It defines

    HELP: str                       one line
    add_arguments(parser)           its options
    run(args) -> dict               'rows': list of dicts, printed as a table; anything else is printed below it

and imports what is slow to import in `run`.
"""

import argparse
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

import benchmarks

from usp_mm.cli import run_command
from usp_mm.outputs import check_file
from usp_mm.processor import bfloat16_instructions, processor_name


def load_benchmarks() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return {name: importlib.import_module(f'benchmarks.{name}') for name in names}


def hardware() -> dict[str, str | int]:
    """What the numbers were measured on."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    instructions = bfloat16_instructions()
    return dict(
        cpu=processor_name(),
        cores=len(os.sched_getaffinity(0)),
        bfloat16='unknown' if instructions is None else ', '.join(instructions) or 'none',
        gpu=', '.join(gpus) or 'none',
        torch=torch.__version__,
    )


def show(name: str, result: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    rows = result['rows']
    table = Table(title=f'benchmark {name}: ' + ', '.join(f'{key} {value}' for key, value in result['hardware'].items()))
    for i, key in enumerate(rows[0]):
        table.add_column(key, justify='left' if i == 0 else 'right')
    for row in rows:
        table.add_row(*(_number(value) if isinstance(value, float) else str(value) for value in row.values()))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for key, value in result.items():
        if key not in ('rows', 'hardware', 'arguments'):
            console.print(f'{key}: {value}')


def _number(value: float) -> str:
    return f'{value:,.0f}' if abs(value) >= 1000 else f'{value:.3g}'


def parse_args(available: dict[str, ModuleType]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='benchmark', required=True)
    for name, module in available.items():
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        command.add_argument('--json', type=Path, metavar='FILE', help='write the result there too')
        module.add_arguments(command)
    return parser.parse_args()


def main() -> None:
    available = load_benchmarks()
    args = parse_args(available)
    check_file(args.json, '--json')
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items() if key != 'json'}
    result = dict(hardware=hardware(), arguments=arguments, **available[args.benchmark].run(args))
    show(args.benchmark, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')


if __name__ == '__main__':
    run_command(main)
