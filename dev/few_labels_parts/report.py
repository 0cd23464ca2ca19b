"""The table, the files and the picture of dev/few_labels.py."""

import csv
import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from usp_mm.fileio.atomic import write_json, write_whole

from .arms import ARMS

SCORES = ('probe', 'k-NN', 'fine-tuning')
FIELDS = ('data', 'arm', 'seed', 'score', 'labels_per_class', 'labels_seed', 'accuracy')
NOT_RUN = 'not run'


def summary(rows: Sequence[dict[str, Any]], data: str, arm: str, score: str, per_class: int) -> list[float]:
    """Accuracy of each seed in ascending order, each the mean over its draws of labels."""
    by_seed: dict[int, list[float]] = {}
    wanted = dict(data=data, arm=arm, score=score, labels_per_class=per_class)
    for row in rows:
        if all(row[key] == value for key, value in wanted.items()):
            by_seed.setdefault(row['seed'], []).append(row['accuracy'])
    return [statistics.mean(by_seed[seed]) for seed in sorted(by_seed)]


def cell(accuracies: Sequence[float]) -> str:
    """'mean ± standard deviation' of the seeds; of one seed only its value, marked."""
    if not accuracies:
        return NOT_RUN
    if len(accuracies) == 1:
        return f'{accuracies[0]:.1f} (1 seed)'
    text = f'{statistics.mean(accuracies):.1f} ± {statistics.stdev(accuracies):.1f}'
    return text if len(accuracies) == 3 else f'{text} ({len(accuracies)} seeds)'


def table(rows: Sequence[dict[str, Any]], names: Sequence[str], numbers: Sequence[int]) -> str:
    """All numbers as a Markdown table."""
    lines = [f'| data, score | arm | {" | ".join(map(str, numbers))} |', '|---' * (2 + len(numbers)) + '|']
    for name in names:
        for score in SCORES:
            for arm in ARMS:
                cells = [cell(summary(rows, name, arm, score, number)) for number in numbers]
                lines.append(f'| {name}, {score} | {arm} | {" | ".join(cells)} |')
    return '\n'.join(lines) + '\n'


def draw(rows: Sequence[dict[str, Any]], names: Sequence[str], numbers: Sequence[int], out: Path) -> None:
    """Accuracy against labels a class, a panel for each data set and score that was run; bars are standard deviations."""
    panels = [
        (name, score) for name in names for score in SCORES if any((r['data'], r['score']) == (name, score) for r in rows)
    ]
    columns = max(1, min(3, len(panels)))
    height = -(-max(1, len(panels)) // columns)
    figure = Figure(figsize=(3.4 * columns, 3.0 * height), layout='constrained')
    for i, (name, score) in enumerate(panels):
        axes: Any = figure.add_subplot(height, columns, i + 1)
        for arm in ARMS:
            points = [(number, found) for number in numbers if (found := summary(rows, name, arm, score, number))]
            spread = [statistics.stdev(found) if len(found) > 1 else 0.0 for _, found in points]
            means = [statistics.mean(found) for _, found in points]
            axes.errorbar([number for number, _ in points], means, spread, marker='.', capsize=2, label=arm)
        axes.set(xscale='log', xlabel='labels a class', ylabel='accuracy (%)', title=f'{name}, {score}')
        axes.set_xticks(list(numbers), [str(number) for number in numbers])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        if i == 0:
            axes.legend(fontsize='small')
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=100)


def write_report(folder: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], numbers: list[int], facts: dict) -> None:
    """Write runs.csv, summary.json, table.md and curves.png, each completely or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    for name, content in (('runs.csv', text.getvalue()), ('table.md', table(rows, names, numbers))):
        with write_whole(folder / name) as file:
            file.write(content.encode())
    draw(rows, names, numbers, folder / 'curves.png')
    write_json(folder / 'summary.json', dict(facts, numbers=numbers, runs=list(rows)))
