"""Segment images with a trained segmentor: mmseg's inferencer with strict loading, and its results as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from mmseg.datasets.transforms.loading import InferencerLoader
from PIL import Image
from tqdm import tqdm

from usp_mm.datasets import LoadImage, dataset_configs
from usp_mm.datasets.class_names import class_name
from usp_mm.engine.starting.loading import load_config, load_trained
from usp_mm.fileio.atomic import write_whole
from usp_mm.fileio.weights import Checkpoint, read_trained
from usp_mm.images import load_image
from usp_mm.registry import DATASETS
from usp_mm.segmentation.picture import draw_segments


class FileSegmentor(MMSegInferencer):
    """mmseg's `MMSegInferencer` for a config and a checkpoint of usp train, or a file with only its weights.

    Args:
        cfg: Config of a segmentor, whose test pipeline decodes the images.
        checkpoint: Checkpoint, loaded strictly. The classes stored in it name the labels, or else the test data set's.
        device: Device of the model; by default the GPU if there is one, else the CPU.
        fix: Advice in the error for a checkpoint that does not fit.

    Raises:
        ValueError: The checkpoint is of another model or VAE.
    """

    def __init__(self, cfg: Config, checkpoint: Checkpoint, device: str | None = None, fix: str | None = None) -> None:
        self.checkpoint, self.fix = checkpoint, fix
        super().__init__(cfg, device=device)
        self.show_progress = False  # of a single image

    def _init_pipeline(self, cfg: Config) -> Compose:
        pipeline = super()._init_pipeline(cfg)
        for step in pipeline.transforms:
            if isinstance(step, InferencerLoader):
                step.from_file = LoadImage()  # decoded as in the rest of the package, not by mmcv
        return pipeline

    def _load_weights_to_model(self, model: Any, checkpoint: dict | None, cfg: Config) -> None:
        load_trained(model, self.checkpoint, cfg, fix=self.fix)
        *_, dataset = dataset_configs(cfg.test_dataloader.dataset)
        known = DATASETS.get(dataset.type).METAINFO
        classes = self.checkpoint.classes or (dataset.get('metainfo') or {}).get('classes') or known['classes']
        model.dataset_meta = dict(classes=classes, palette=_palette(known, len(classes)))


def segmentor(
    config: str | Path | Config, checkpoint: str | Path, device: str | None = None, cfg_options: dict[str, Any] | None = None
) -> FileSegmentor:
    """Build the inferencer of a segmentor's config and checkpoint.

    Raises:
        FileNotFoundError: The config or checkpoint does not exist.
        ValueError: The config is of another stage, or the checkpoint is of another model.
    """
    trained = read_trained(checkpoint)
    cfg = load_config(config, cfg_options, initialises=False)
    if cfg.model.type != 'USPSegmentor':
        raise ValueError(f"segmentation needs the config of a segmentor (model.type 'USPSegmentor'), got '{cfg.model.type}'")
    cfg.model.backbone.init_cfg = None
    return FileSegmentor(cfg, trained, device)


#: Of the colours over an image.
OPACITY = 0.6


def segment_images(infer: FileSegmentor, paths: Sequence[Path], out: Path) -> list[dict]:
    """Label every pixel of each image.

    Writes `out`/labels/NAME.png, a map of labels at the image's size, and `out`/overlays/NAME.png, the labels as colours over
    the image, with the names of the classes.

    Returns:
        For each image dict(path, labels, overlay, classes=[{label, class, share}, …]), with the classes that cover most pixels
        first.

    Raises:
        ValueError: Two images have the same name, from which the names of their files are made.
    """
    _check_names(paths)
    classes = infer.model.dataset_meta['classes']
    for folder in ('labels', 'overlays'):
        (out / folder).mkdir(parents=True, exist_ok=True)
    results = []
    for path in tqdm(paths, desc='segmenting', unit='img', leave=False):
        found = np.asarray(infer(str(path), return_vis=False)['predictions'])
        files = {kind: out / kind / f'{path.stem}.png' for kind in ('labels', 'overlays')}
        labels = found.astype(np.uint8 if len(classes) <= 256 else np.uint16)
        overlay = draw_segments(np.asarray(load_image(path)), labels, classes, infer.model.dataset_meta['palette'], OPACITY)
        for kind, pixels in (('labels', labels), ('overlays', overlay)):
            with write_whole(files[kind]) as file:
                Image.fromarray(pixels).save(file, format='PNG')
        results.append(dict(path=str(path), **{k: str(v) for k, v in files.items()}, classes=_shares(labels, classes)))
    return results


def _palette(known: dict[str, Any], num_classes: int) -> Sequence[Sequence[int]]:
    """Colours of the data set, or fixed other colours if the number of classes differs (mmseg's default has Cityscapes' 19)."""
    palette = known.get('palette') or ()
    return palette if len(palette) == num_classes else np.random.default_rng(0).integers(0, 256, (num_classes, 3)).tolist()


def _shares(labels: np.ndarray, classes: Sequence[str]) -> list[dict]:
    counts = np.bincount(labels.ravel(), minlength=len(classes))
    order = np.argsort(-counts, kind='stable')[: np.count_nonzero(counts)]
    return [
        {'label': int(k), 'class': class_name(classes, int(k)) or str(k), 'share': float(counts[k] / labels.size)}
        for k in order
    ]


def _check_names(paths: Sequence[Path]) -> None:
    first: dict[str, Path] = {}
    for path in paths:
        if first.setdefault(path.stem, path) != path:
            raise ValueError(f"'{first[path.stem]}' and '{path}' would write the same files: label them in two runs")
