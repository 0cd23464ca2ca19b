"""Picture of matrices of centred kernel alignment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from usp_mm.fileio.atomic import write_whole

#: Matrices with more blocks than this have no numbers in their cells.
_NUMBERED = 16


def draw_cka(matrices: Mapping[str, Sequence[Sequence[float]]], against: str, out: Path) -> None:
    """Draw matrices side by side on a common scale from 0 to 1 and write the picture (PNG), completely or not at all.

    Args:
        matrices: Title -> a row for each block of the network named `against`, a column for each block of the other.
        against: Label of the rows.
        out: File to write; its folder is made.
    """
    tables = {title: np.asarray(matrix) for title, matrix in matrices.items()}
    height, width = next(iter(tables.values())).shape
    cell = 0.55 if max(height, width) <= _NUMBERED else 0.25
    size = (1.8 + len(tables) * (cell * width + 0.7), cell * height + 1.5)
    figure = Figure(figsize=size, layout='compressed')
    panels: Any = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
    images = []
    for panel, (title, table) in zip(panels, tables.items(), strict=True):
        images.append(panel.imshow(table, vmin=0, vmax=1, cmap='viridis', origin='lower'))
        panel.set(title=title, xlabel='block of the generator', xticks=range(table.shape[1]), yticks=range(table.shape[0]))
        panel.set_xticklabels(_labels(table.shape[1]))
        panel.set_yticklabels(_labels(table.shape[0]))
        if max(table.shape) <= _NUMBERED:
            for (row, column), value in np.ndenumerate(table):
                colour = 'black' if value > 0.6 else 'white'
                panel.text(column, row, f'{value:.2f}', ha='center', va='center', color=colour, fontsize=8)
    panels[0].set_ylabel(f'block of {against}')
    figure.colorbar(images[0], ax=list(panels), label='CKA', shrink=0.9)
    out.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=120)


def _labels(num: int) -> list[str]:
    """Every block's number, or of many every fourth."""
    step = 1 if num <= _NUMBERED else 4
    return [str(k) if k == 1 or k % step == 0 else '' for k in range(1, num + 1)]
