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
from usp_mm.engine.loading import load_config, load_trained
from usp_mm.models import USP
from usp_mm.models.restoration_picture import restoration_picture
from usp_mm.weight_files import read_trained


def load_algorithm(
    config: str | Path | Config,
    checkpoint: str | Path,
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> USP:
    """The pretraining algorithm of a config with a checkpoint's weights, loaded strictly.

    Args:
        config: as `usp_mm.engine.loading.load_config` takes it.
        checkpoint: of `tools/train.py`, or official weights.
        device: by default the GPU, else the CPU.
        cfg_options: settings to override.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: a config of another stage or with an unknown key, or a checkpoint of another model or VAE.
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
    """One row an image, as `restoration_picture` draws it: uint8[rows, columns, 3], RGB.

    Args:
        images: files; each is resized and centre-cropped to the model's size.
        composite: 'predicted' or 'visible'.
        seed: of the masks.
        denormalize: whether predicted patches are put on the scale of the true ones; the official pictures are without.
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
