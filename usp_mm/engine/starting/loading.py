"""Load and check a config and a checkpoint of its model."""

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from torch import Tensor, nn

from usp_mm.config.lookup import find_config
from usp_mm.datasets import dataset_configs
from usp_mm.datasets.class_names import check_classes
from usp_mm.fileio.strict_loading import ITS_CONFIG, load_exactly
from usp_mm.fileio.weights import Checkpoint
from usp_mm.vaes.record import check_model_vae, codec_of

from ..checks.config import check_config, merge_cfg_options
from ..checks.config.whole_config import misspelt_variables


def load_config(
    config: str | Path | Config,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    initialises: bool = True,
    evaluates: bool = True,
) -> Config:
    """Load and check a config, with a user's options applied.

    Args:
        config: A file, the name of a config that comes with the package (see `usp_mm.config.lookup.find_config`), or a Config
            from `Config.fromfile`, which is copied and not changed.
        cfg_options: Settings to override, such as {'model.sampler.num_steps': 50}.
        initialises: Whether weights will be initialised, so that `init_cfg` has to name its checkpoint.
        evaluates: Whether evaluators will be built, so that their settings have to be valid.

    Raises:
        FileNotFoundError: The config does not exist.
        ValueError: Nothing reads a key, or `check_config` refuses a value.
    """
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    else:
        file = find_config(config)
        if file != Path(config):
            print_log(f"config '{config}' is {file}", 'current')
        cfg = Config.fromfile(file)
    merge_cfg_options(cfg, dict(cfg_options or {}))
    check_config(cfg, initialises, evaluates)
    if not isinstance(config, Config):
        for name in misspelt_variables(cfg):
            print_log(f'nothing reads the variable {name} of {config}', 'current', logging.WARNING)
    return cfg


def load_trained(
    model: nn.Module,
    checkpoint: Checkpoint,
    cfg: Config,
    weights: Mapping[str, Tensor] | None = None,
    fix: str | None = None,
) -> None:
    """Load a checkpoint's weights into a model with `load_exactly`, and compare the VAE with the checkpoint's.

    Args:
        model: Model that the config describes.
        checkpoint: Checkpoint that has been read.
        cfg: Config of the model.
        weights: Weights of the checkpoint to load, under the model's names; all of them if None.
        fix: Advice in the error for weights that do not fit; None names the config in the checkpoint's folder.

    Raises:
        ValueError: The checkpoint is of another model or VAE.
    """
    weights = checkpoint.weights if weights is None else weights
    load_exactly(model, weights, checkpoint.path, fix=fix or _own_config(checkpoint.path))
    check_model_vae(checkpoint, codec_of(model), cfg)


def _own_config(checkpoint: Path) -> str:
    """Advice that names the config that the training wrote beside its checkpoints, with its --cfg-options, if it is there."""
    configs = sorted(checkpoint.parent.glob('*.py'))
    return f"{ITS_CONFIG}, '{configs[0]}'" if len(configs) == 1 else ITS_CONFIG


def class_names(checkpoint: Checkpoint, cfg: Config) -> Sequence[str] | None:
    """Class names that MMEngine stored with the training data set, or else those that the config has for validation.

    Raises:
        ValueError: Both have names, and label k does not stand for the same class.
    """
    noted, configured = checkpoint.classes, None
    for dataset in dataset_configs((cfg.get('val_dataloader') or {}).get('dataset')):
        configured = configured or dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if isinstance(configured, str):  # in mmpretrain, a file with one name per line
        configured = list_from_file(str(Path(configured).expanduser()))
    if noted and configured:
        meeting = f"checkpoint '{checkpoint.path}' and the config's val_dataloader"
        check_classes(noted[: len(configured)], configured, meeting, ITS_CONFIG)
    return noted or configured
