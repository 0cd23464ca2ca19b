"""Draw the curves of a training on own pictures: losses by step, and accuracies of the linear probe."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from usp_mm.analysis.convergence import readable_ticks
from usp_mm.analysis.run_log import read_run
from usp_mm.fileio.atomic import write_whole

#: Work folder -> the metrics that are drawn, and the title.
_PANELS = {
    'pretrain': ('loss', 'USP pretraining', 'loss'),
    'probe': ('accuracy/top1', 'linear probe, held-out pictures', 'top-1 accuracy, %'),
    'generate': ('loss', 'SiT generator', 'loss'),
}


def draw_curves(folder: Path, out: Path) -> bool:
    """Draw a panel for each training in `folder` that has a log; return whether there is one."""
    runs = {name: read_run(folder / name) for name in _PANELS if any((folder / name).glob('*/vis_data/scalars.json'))}
    found = {name: run.metrics[_PANELS[name][0]] for name, run in runs.items() if _PANELS[name][0] in run.metrics}
    if not found:
        return False
    figure = Figure(figsize=(5 * len(found), 4), layout='constrained')
    for i, (name, (steps, values)) in enumerate(found.items(), start=1):
        panel: Any = figure.add_subplot(1, len(found), i)
        panel.plot(steps, values, marker='.' if len(steps) < 30 else None)
        panel.set(title=_PANELS[name][1], xlabel='training steps', ylabel=_PANELS[name][2], xlim=(0, None))
        readable_ticks(panel, _PANELS[name][0])
        panel.grid(alpha=0.3)
    with write_whole(out) as file:
        figure.savefig(file, format='png', dpi=120)
    return True
