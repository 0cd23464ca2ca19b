"""Follow a run in Weights & Biases, MLflow or TensorBoard: `--tracker`, by MMEngine's backends of the visualizer."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from usp_mm.options import TRACKERS

PROJECT = 'usp_mm'
#: Name of a tracker -> (the backend's type, the package that it needs).
_BACKENDS = {
    'tensorboard': ('TensorboardVisBackend', 'tensorboard'),
    'wandb': ('WandbVisBackend', 'wandb'),
    'mlflow': ('MLflowVisBackend', 'mlflow'),
}
assert tuple(_BACKENDS) == TRACKERS


def use_trackers(cfg: Config, names: Sequence[str]) -> None:
    """Send scalars, config and pictures of a run to these trackers, and to the files in the work folder as always.

    A backend that the config already has keeps its settings. The name of the run is that of the work folder.

    Raises:
        ValueError: A tracker's package is not installed.
    """
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    present = {one['type']: one for one in visualizer.get('vis_backends') or ()}
    backends = [present.get('LocalVisBackend', dict(type='LocalVisBackend'))]
    for name in dict.fromkeys(names):
        kind, package = _BACKENDS[name]
        if importlib.util.find_spec(package) is None:
            raise ValueError(f'--tracker {name}: {package} is not installed: `pip install {package}`')
        backends.append(present.get(kind) or dict(type=kind, **_settings(name, Path(cfg.work_dir).name)))
    cfg.visualizer = {**visualizer, 'vis_backends': backends}


def _settings(name: str, run: str) -> dict[str, Any]:
    if name == 'wandb':
        return dict(init_kwargs=dict(project=os.environ.get('WANDB_PROJECT', PROJECT), name=os.environ.get('WANDB_NAME', run)))
    if name == 'mlflow':  # MMEngine reads none of MLflow's variables
        return dict(
            exp_name=os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT),
            run_name=run,
            tracking_uri=os.environ.get('MLFLOW_TRACKING_URI'),
        )
    return {}
