"""Write the results of a probe of all layers to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from usp_mm.fileio.atomic import write_json, write_whole

from .layer_probe import best_layer

JSON, CURVE = 'layers.json', 'layers.png'


def write_probe_report(folder: Path, rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> dict[str, Any]:
    """Write layers.png and then layers.json, each completely or not at all.

    Args:
        folder: Folder of the files; it is created if needed.
        rows: Rows from `score_heads`.
        facts: Further facts for the JSON file.

    Returns:
        The content of layers.json: `facts`, `best` (the row with the highest top-1 accuracy) and `layers` (the rows).
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = dict(facts, best=best_layer(rows), layers=list(rows))
    draw_layers(rows, folder / CURVE, picture_title(facts))
    write_json(folder / JSON, content)
    return content


def picture_title(facts: dict[str, Any]) -> str:
    """Title with the network and, for a generator, the weights and time that were probed."""
    weights = {'ema': 'averaged weights', 'model': 'raw weights'}.get(str(facts.get('weights')))
    parts = [facts.get('network'), weights, None if weights is None else f't = {facts.get("t")}']
    return ', '.join(str(part) for part in parts if part is not None)


def draw_layers(rows: Sequence[dict[str, Any]], out: Path, title: str = '') -> None:
    """Draw top-1 accuracy by layer as a PNG (Figure 4), with the best layer marked."""
    best = best_layer(rows)
    figure = Figure(figsize=(6.4, 4.8), layout='constrained')
    panel: Any = figure.add_subplot()
    panel.plot([row['layer'] for row in rows], [row['top1'] for row in rows], marker='.')
    panel.plot(best['layer'], best['top1'], marker='*', markersize=14, linestyle='none', label=f'best: layer {best["layer"]}')
    panel.annotate(f'{best["top1"]:.2f}', (best['layer'], best['top1']), textcoords='offset points', xytext=(8, 4))
    panel.set(xlabel='layer', ylabel='linear probe, top-1 accuracy (%)', title=title)
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.grid(alpha=0.3)
    panel.legend(loc='lower right')
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=150)
