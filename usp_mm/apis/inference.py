"""Classify images and extract their features with a trained classifier: mmpretrain's inferencers, on files as in evaluation."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer, get_model
from mmpretrain.registry import TRANSFORMS
from PIL import Image, UnidentifiedImageError

from usp_mm.datasets import dataset_configs
from usp_mm.engine.loading import class_names, load_config, load_trained
from usp_mm.weight_files import read_trained


class _FromFiles:
    """An inferencer that decodes files as the test pipeline does (Pillow), and takes arrays as mmpretrain's do (BGR)."""

    #: mmpretrain's, beside which this stands.
    pipeline: Compose
    _get_chunk_data: Callable[..., Iterator]

    def _init_pipeline(self, cfg: Config) -> Compose:
        return Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])

    def preprocess(self, inputs: Sequence, batch_size: int = 1) -> Iterator[dict]:
        """Files or arrays uint8[H, W, 3] -> batches for `model.test_step`."""
        yield from map(default_collate, self._get_chunk_data(map(self._load, enumerate(inputs)), batch_size))

    def _load(self, item: tuple[int, Any]) -> dict:
        index, image = item
        if isinstance(image, str | Path):
            return self.pipeline(dict(img_path=str(image), sample_idx=index))
        size = image.shape[:2]
        return self.pipeline(dict(img=image, img_shape=size, ori_shape=size, sample_idx=index))


class FileClassifier(_FromFiles, ImageClassificationInferencer):
    """mmpretrain's `ImageClassificationInferencer` with the scores that `tools/test.py` computes."""


class FileFeatureExtractor(_FromFiles, FeatureExtractor):
    """mmpretrain's `FeatureExtractor` on images decoded as `tools/test.py` decodes them."""


KINDS: dict[str, type[FileClassifier | FileFeatureExtractor]] = {'classify': FileClassifier, 'embed': FileFeatureExtractor}


def inferencer(
    config: str | Path | Config,
    checkpoint: str | Path,
    kind: str = 'classify',
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> FileClassifier | FileFeatureExtractor:
    """mmpretrain's inferencer for a classifier's config and checkpoint, loaded strictly, on images.

    Args:
        config: as `usp_mm.engine.loading.load_config` takes it; its test data may be a latent cache.
        checkpoint: of `tools/train.py`; a file or an address.
        kind: 'classify' or 'embed'.
        device: by default the GPU, else the CPU.
        cfg_options: settings to override.

    Raises:
        FileNotFoundError: no such config or checkpoint.
        ValueError: another kind, a config of another stage, or a checkpoint of another model or VAE.
    """
    if kind not in KINDS:
        raise ValueError(f"kind='{kind}' must be one of {sorted(KINDS)}")
    trained = read_trained(checkpoint)
    cfg = image_config(load_config(config, cfg_options, initialises=False))
    model = get_model(cfg, pretrained=False)
    load_trained(model, trained, cfg)
    model._dataset_meta = dict(classes=class_names(trained, cfg))
    return KINDS[kind](model.to(device or get_device()), pretrained=False)


def image_config(cfg: Config) -> Config:
    """A copy of a classifier's config that runs on images: what mmpretrain's inferencers need where data is a latent cache.

    A latent cache as test data is replaced by an ImageFolder with the cache's centre crop at the backbone's `img_size`,
    a wrapper of data sets by the first below it that has a pipeline, and the VAE is loaded.

    Raises:
        ValueError: a config of another stage.
    """
    if cfg.model.type != 'USPClassifier':
        raise ValueError(f"inference needs the config of a classifier (model.type 'USPClassifier'), got '{cfg.model.type}'")
    cfg = copy.deepcopy(cfg)
    if cfg.model.get('data_preprocessor'):
        cfg.model.data_preprocessor.load_vae = True
    found = [dataset for dataset in dataset_configs(cfg.test_dataloader.dataset) if dataset.get('pipeline')]
    if found:
        cfg.test_dataloader.dataset = found[0]
    else:
        size = cfg.model.backbone.get('img_size', 224)
        steps = [dict(type='LoadImage'), dict(type='ADMCenterCrop', size=size), dict(type='PackInputs')]
        cfg.test_dataloader.dataset = dict(type='ImageFolder', data_root='', pipeline=steps)
    return cfg


def check_images(paths: Sequence[Path]) -> None:
    """ValueError that names the first file that is no image, or too large for one by Pillow's limit (its header is read)."""
    for path in paths:
        try:
            with Image.open(path):
                pass
        except UnidentifiedImageError as error:
            raise ValueError(f"'{path}' is no image: leave it out or replace it") from error
        except Image.DecompressionBombError as error:
            raise ValueError(f"cannot decode image '{path}': {error}; leave it out or replace it") from error
