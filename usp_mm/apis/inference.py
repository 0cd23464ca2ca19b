"""mmpretrain's inferencers for trained classifiers, which classify and embed files with the same results as evaluation."""

import copy
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dataset import Compose, default_collate
from mmengine.device import get_device
from mmpretrain.apis import FeatureExtractor, ImageClassificationInferencer, get_model
from mmpretrain.registry import TRANSFORMS
from PIL import UnidentifiedImageError

from usp_mm.datasets import dataset_configs
from usp_mm.engine.starting.loading import class_names, load_config, load_trained
from usp_mm.fileio.weights import read_trained
from usp_mm.images import check_header


class _FromFiles:
    """An inferencer that decodes files as the test pipeline does (Pillow), and takes arrays as mmpretrain's do (BGR)."""

    #: mmpretrain's, beside which this stands.
    pipeline: Compose
    _get_chunk_data: Callable[..., Iterator]

    def _init_pipeline(self, cfg: Config) -> Compose:
        return Compose([TRANSFORMS.build(step) for step in cfg.test_dataloader.dataset.pipeline])

    def preprocess(self, inputs: Sequence, batch_size: int = 1) -> Iterator[dict]:
        """Yield batches for `model.test_step` from files or arrays uint8[H, W, 3]."""
        yield from map(default_collate, self._get_chunk_data(map(self._load, enumerate(inputs)), batch_size))

    def _load(self, item: tuple[int, Any]) -> dict:
        index, image = item
        if isinstance(image, str | Path):
            return self.pipeline(dict(img_path=str(image), sample_idx=index))
        size = image.shape[:2]
        return self.pipeline(dict(img=image, img_shape=size, ori_shape=size, sample_idx=index))


class FileClassifier(_FromFiles, ImageClassificationInferencer):
    """mmpretrain's `ImageClassificationInferencer`, with the same scores as `usp test`."""


class FileFeatureExtractor(_FromFiles, FeatureExtractor):
    """mmpretrain's `FeatureExtractor`, with images decoded as in `usp test`."""


KINDS: dict[str, type[FileClassifier | FileFeatureExtractor]] = {'classify': FileClassifier, 'embed': FileFeatureExtractor}


def inferencer(
    config: str | Path | Config,
    checkpoint: str | Path,
    kind: str = 'classify',
    device: str | None = None,
    cfg_options: dict[str, Any] | None = None,
) -> FileClassifier | FileFeatureExtractor:
    """Build mmpretrain's inferencer for a classifier's config and a checkpoint, loaded strictly.

    Args:
        config: Config, as `usp_mm.engine.starting.loading.load_config` takes it; its test data may be a latent cache.
        checkpoint: Checkpoint of `usp train`, a file or a URL.
        kind: 'classify' or 'embed'.
        device: Device of the model; by default the GPU if there is one, else the CPU.
        cfg_options: Settings to override.

    Raises:
        FileNotFoundError: The config or checkpoint does not exist.
        ValueError: The kind is unknown, the config is of another stage, or the checkpoint is of another model or VAE.
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
    """Copy a classifier's config and change it to run on images, as mmpretrain's inferencers need.

    A latent cache as test data is replaced by an ImageFolder with the cache's centre crop at the backbone's `img_size`. A
    wrapper of data sets is replaced by the first data set inside it that has a pipeline. The VAE is loaded.

    Raises:
        ValueError: The config is of another stage.
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
    """Raise a ValueError that names the first file that is no image or has too many pixels; only headers are read."""
    for path in paths:
        try:
            check_header(path)
        except ValueError as error:
            if isinstance(error.__cause__, UnidentifiedImageError):
                raise ValueError(f"'{path}' is no image: leave it out or replace it") from error
            raise
