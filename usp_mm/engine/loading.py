"""A config and a checkpoint of its model: each read and checked once, whoever asks."""

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.logging import print_log
from torch import Tensor, nn

from usp_mm.config_files import find_config
from usp_mm.datasets import dataset_configs
from usp_mm.datasets.class_names import check_classes
from usp_mm.strict_loading import ITS_CONFIG, load_exactly
from usp_mm.vaes.record import check_model_vae, codec_of
from usp_mm.weight_files import Checkpoint

from .checks.config import check_config, merge_cfg_options
from .checks.config.check import misspelt_variables


def load_config(
    config: str | Path | Config,
    cfg_options: Mapping[str, Any] | None = None,
    *,
    initialises: bool = True,
    evaluates: bool = True,
) -> Config:
    """A config with a user's options, checked.

    Args:
        config: a file, the name of one that comes with the package (see `usp_mm.config_files.find_config`), or what
            `Config.fromfile` made of it, which is copied and not changed.
        cfg_options: settings to override: {'model.sampler.num_steps': 50}.
        initialises: whether weights will be initialised, so that `init_cfg` has to name its checkpoint.
        evaluates: whether evaluators will be built, so that they have to be right.

    Raises:
        FileNotFoundError: no such config.
        ValueError: a key that nothing reads.
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


def load_trained(model: nn.Module, checkpoint: Checkpoint, cfg: Config, weights: Mapping[str, Tensor] | None = None) -> None:
    """Give a model of a config its checkpoint's weights, see `load_exactly`, and compare the VAE with the checkpoint's.

    Args:
        weights: those of the checkpoint that the model takes, by its names; all of them if None.

    Raises:
        ValueError: a checkpoint of another model or VAE.
    """
    load_exactly(model, checkpoint.weights if weights is None else weights, checkpoint.path)
    check_model_vae(checkpoint, codec_of(model), cfg)


def class_names(checkpoint: Checkpoint, cfg: Config) -> Sequence[str] | None:
    """As MMEngine noted them of the training data set, else as the config has them for validation.

    Raises:
        ValueError: both name them, and label k is not the same class.
    """
    noted, configured = checkpoint.classes, None
    for dataset in dataset_configs((cfg.get('val_dataloader') or {}).get('dataset')):
        configured = configured or dataset.get('classes') or (dataset.get('metainfo') or {}).get('classes')
    if isinstance(configured, str):  # mmpretrain's: a file with a name a line
        configured = list_from_file(str(Path(configured).expanduser()))
    if noted and configured:
        meeting = f"checkpoint '{checkpoint.path}' and the config's val_dataloader"
        check_classes(noted[: len(configured)], configured, meeting, ITS_CONFIG)
    return noted or configured
