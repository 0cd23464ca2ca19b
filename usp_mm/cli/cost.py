"""Time, throughput, operations and GPU-days of training runs, one row each, and their sums (Table 5).

usp cost work_dirs/usp_vit-base work_dirs/sit-base_usp-pre
usp cost work_dirs/usp_vit-xl work_dirs/dit-xl_usp-pre@600000 --markdown    # of the second, 600,000 steps

Read from the logs and run_info.json. Operations are those of forward and backward pass (a multiplication and an addition
are two), without the VAE and without what activation checkpointing repeats. Validation and sampling are not counted.
"""

import argparse
from pathlib import Path
from typing import Any

from usp_mm.config.arguments import ToolParser
from usp_mm.fileio.atomic import write_json
from usp_mm.fileio.outputs import check_file
from usp_mm.runtime.console import table_console

COLUMNS = (
    'run', 'stage', 'config', 'device', 'steps', 'samples', 'samples/s', 'hours', 'GFLOP/sample', 'EFLOP', 'GPU-days',
)  # fmt: skip


def parse_args() -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('runs', nargs='+', metavar='RUN', help='work folder; DIR@STEP for only its first STEP steps')
    parser.add_argument('--markdown', action='store_true', help='print Markdown')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the numbers there too')
    return parser.parse_args()


def cost_of(word: str) -> dict[str, Any]:
    """The training cost of DIR or DIR@STEP."""
    from usp_mm.analysis.cost import run_cost
    from usp_mm.analysis.run_log import read_run

    folder, _, step = word.rpartition('@')
    if Path(word).is_dir() or not step.isdigit():
        return run_cost(read_run(word))
    return run_cost(read_run(folder), int(step))


def text(value: Any) -> str:
    if isinstance(value, float):
        return f'{value:,.0f}' if value >= 1000 else f'{value:.3g}'
    return 'unknown' if value is None else f'{value:,}' if isinstance(value, int) else value


def show(rows: list[dict[str, Any]], markdown: bool) -> None:
    cells = [[text(row[key]) if key in row else '' for key in COLUMNS] for row in rows]
    if markdown:
        print('\n'.join(f'| {" | ".join(line)} |' for line in [COLUMNS, ['---'] * len(COLUMNS), *cells]))
        return
    from rich.table import Table

    table = Table(title='training cost')
    for i, key in enumerate(COLUMNS):
        table.add_column(key, justify='left' if i < 4 else 'right', overflow='fold')
    for i, line in enumerate(cells):
        table.add_row(*line, end_section=i == len(cells) - 2)
    table_console().print(table)


def main() -> None:
    args = parse_args()
    check_file(args.json, '--json')
    from usp_mm.analysis.cost import total_cost

    costs = [cost_of(word) for word in args.runs]
    total = total_cost(costs)
    show([*costs, total], args.markdown)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.json, dict(runs=costs, total=total))
