"""Follow a run in Weights & Biases, MLflow or TensorBoard: `--tracker`, by MMEngine's backends of the visualizer."""

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend

from usp_mm.config.options import TRACKERS

PROJECT = 'usp_mm'
#: Name of a tracker -> (the backend's type, the package that it needs).
_BACKENDS = {
    'tensorboard': ('TensorboardVisBackend', 'tensorboard'),
    'wandb': ('WandbVisBackend', 'wandb'),
    'mlflow': ('MLflowPictureVisBackend', 'mlflow'),
}
assert tuple(_BACKENDS) == TRACKERS


@VISBACKENDS.register_module()
class MLflowPictureVisBackend(MLflowVisBackend):
    """MMEngine's backend for MLflow, with an ending for pictures, whose format MLflow takes from the file's name."""

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs: Any) -> None:
        """Log a picture uint8[H, W, 3] as `name`_`step`.png."""
        super().add_image(f'{name}_{step}.png', image, step, **kwargs)


def use_trackers(cfg: Config, names: Sequence[str]) -> None:
    """Send scalars, config and pictures of a run to these trackers, and to the files in the work folder as always.

    A backend that the config already has keeps its settings. The name of the run is that of the work folder. MLflow writes to
    `mlflow.db` beside that folder unless `MLFLOW_TRACKING_URI` names another place.

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
        backends.append(present.get(kind) or dict(type=kind, **_settings(name, Path(cfg.work_dir).absolute())))
    cfg.visualizer = {**visualizer, 'vis_backends': backends}


def _settings(name: str, work_dir: Path) -> dict[str, Any]:
    if name == 'wandb':
        run = os.environ.get('WANDB_NAME', work_dir.name)
        return dict(init_kwargs=dict(project=os.environ.get('WANDB_PROJECT', PROJECT), name=run))
    if name == 'mlflow':  # MMEngine reads none of MLflow's variables, and its default, plain files, is refused by MLflow 3
        address, experiment = os.environ.get('MLFLOW_TRACKING_URI'), os.environ.get('MLFLOW_EXPERIMENT_NAME', PROJECT)
        here = dict(artifact_location=str(work_dir.parent / 'mlflow-artifacts')) if address is None else {}
        address = address or f'sqlite:///{work_dir.parent / "mlflow.db"}'
        return dict(exp_name=experiment, run_name=work_dir.name, tracking_uri=address, **here)
    return {}
