"""Restore masked images with a pretrained USP (Figures 5 and 6)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.device import get_device
from mmpretrain.registry import MODELS, TRANSFORMS

from usp_mm.checkpoints import from_official
from usp_mm.datasets import EpochIndex
from usp_mm.engine.starting.loading import load_config, load_trained
from usp_mm.fileio.weights import read_trained
from usp_mm.models import USP
from usp_mm.models.restoration_picture import restoration_picture


def load_algorithm(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> USP:
    """Build the pretraining algorithm of a config and load a checkpoint's weights strictly.

    Args:
        config: Config, as `usp_mm.engine.starting.loading.load_config` takes it.
        checkpoint: Checkpoint of `usp train`, or official weights.
        device: Device of the model; by default the GPU if there is one, else the CPU.
        cfg_options: Settings to override.

    Raises:
        FileNotFoundError: The config or checkpoint does not exist.
        ValueError: The config is of another stage or has an unknown key, or the checkpoint is of another model or VAE.
    """
    cfg = load_config(config, cfg_options, initialises=False, evaluates=False)
    if cfg.model.type != 'USP':
        raise ValueError(f"restoration needs a pretraining config (model.type 'USP'), this one has '{cfg.model.type}'")
    trained = read_trained(checkpoint)
    weights = from_official(trained.weights) if 'cls_token' in trained.weights else trained.weights
    model = MODELS.build(cfg.model)
    load_trained(model, trained, cfg, weights)
    return model.to(device or get_device()).eval()


def restore_images(
    model: USP, images: Sequence[str | Path], composite: str = 'predicted', seed: int = 0, denormalize: bool = True
) -> np.ndarray:
    """Draw one row per image, as `restoration_picture` does: uint8[rows, columns, 3], RGB.

    Args:
        model: The pretraining algorithm.
        images: Files; each is resized and centre-cropped to the model's size.
        composite: 'predicted' or 'visible'.
        seed: Seed of the masks.
        denormalize: Whether predicted patches are scaled to the mean and deviation of the true ones; the official pictures
            are made without.
    """
    size = model.backbone.geometry.img_size
    steps = [
        dict(type='LoadImage'),
        dict(type='ResizeEdge', scale=size, edge='short', backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]
    pipeline = Compose([TRANSFORMS.build(step) for step in steps])
    samples = [pipeline(dict(img_path=str(path), sample_idx=EpochIndex(i, 0, seed))) for i, path in enumerate(images)]
    return restoration_picture(model, samples, composite, denormalize)
