"""Accuracy of a trained classifier by level of noise (robustness experiments of USP's appendix A)."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from mmengine.runner import Runner

from usp_mm.analysis.noise import evaluate_under_noise
from usp_mm.datasets import NOISE_SEVERITIES
from usp_mm.fileio.atomic import write_whole


def measure(runner: Runner, severities: Sequence[int], timesteps: Sequence[int]) -> dict:
    """Metrics of the runner's test loop without noise and at each level.

    Returns:
        dict(clean={metric: value}, image=[{severity, std, metric: value}], latent=[{timestep, metric: value}]).
    """
    return dict(
        clean=_as_floats(evaluate_under_noise(runner)),
        image=[
            dict(severity=s, std=NOISE_SEVERITIES[s - 1], **_as_floats(evaluate_under_noise(runner, severity=s)))
            for s in severities
        ],
        latent=[dict(timestep=t, **_as_floats(evaluate_under_noise(runner, timestep=t))) for t in timesteps],
    )


def draw_noise_levels(path: Path, results: dict, metric: str) -> None:
    """Draw `metric` against the level of noise as a PNG, with a panel for each kind of noise that was measured.

    Args:
        path: File to write.
        results: Results of `measure`.
        metric: A key of `results['clean']`.
    """
    kinds = [('image', 'std', 'standard deviation of image noise'), ('latent', 'timestep', 'diffusion step of the latent')]
    kinds = [kind for kind in kinds if results[kind[0]]]
    figure = Figure(figsize=(5 * max(1, len(kinds)), 4), layout='constrained')
    panels = np.atleast_1d(figure.subplots(1, max(1, len(kinds)), sharey=True))
    for panel, (kind, level, label) in zip(panels, kinds, strict=True):
        rows = sorted(results[kind], key=lambda row: row[level])
        panel.plot([row[level] for row in rows], [row[metric] for row in rows], marker='o')
        panel.axhline(results['clean'][metric], color='grey', linestyle='--', label='without noise')
        panel.set(xlabel=label, ylabel=metric)
        panel.grid(alpha=0.3)
        panel.legend()
    content = io.BytesIO()
    figure.savefig(content, format='png', dpi=120)
    with write_whole(path) as file:
        file.write(content.getvalue())


def _as_floats(metrics: dict) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
