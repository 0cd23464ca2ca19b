"""Measure one part of the package: `python tools/benchmark.py cache`.

Every module of `dev/benchmarks` is a sub-command. It defines

    HELP: str                       one line
    add_arguments(parser)           its options
    run(args) -> dict               'rows': list of dicts, printed as a table; anything else is printed below it, other lists
                                    of dicts as tables too; what is in 'failed', if anything, makes the exit code 1

and imports what is slow to import in `run`.
"""

import argparse
import importlib
import json
import os
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Any

import benchmarks

from usp_mm.fileio.outputs import check_file
from usp_mm.runtime.command import run_command
from usp_mm.runtime.console import table_console
from usp_mm.runtime.processor import bfloat16_instructions, processor_name


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
    console = table_console()
    title = f'benchmark {name}: ' + ', '.join(f'{key} {value}' for key, value in result['hardware'].items())
    console.print(_table(title, result['rows']))
    for key, value in result.items():
        if key in ('rows', 'hardware', 'arguments'):
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            console.print(_table(key, value))
        elif isinstance(value, dict):
            console.print(f'{key}:', *(f'    {name}: {fact}' for name, fact in value.items()), sep='\n', highlight=False)
        else:
            console.print(f'{key}: {value}')


def _table(title: str, rows: list[dict]) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for i, key in enumerate(rows[0]):
        table.add_column(key, justify='left' if i == 0 or isinstance(rows[0][key], str) else 'right')
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return '–'
    return _number(value) if isinstance(value, float) else str(value)


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


def main() -> int:
    available = load_benchmarks()
    args = parse_args(available)
    check_file(args.json, '--json')
    arguments = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items() if key != 'json'}
    result = dict(hardware=hardware(), arguments=arguments, **available[args.benchmark].run(args))
    show(args.benchmark, result)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(result, indent=1) + '\n')
    return 1 if result.get('failed') else 0


if __name__ == '__main__':
    run_command(main)
