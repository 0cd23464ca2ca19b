"""A trained segmentor that labels the pixels of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image

from usp_mm.fileio.weights import Checkpoint
from usp_mm.segmentation.picture import draw_segments
from usp_mm.vaes.record import codec_of, vae_record

from .config_data import check_segmentation_data
from .images_in import Picture, rgb
from .pretrained_base import Pretrained
from .segmentation import OPACITY, FileSegmentor
from .sources import Source

#: mmseg's inferencer needs one; it draws nothing here.
_VISUALIZER = dict(type='SegLocalVisualizer', vis_backends=[], name='from_pretrained')


class Segmentor(Pretrained):
    """A `USPSegmentor` for inference, made by `usp_mm.from_pretrained`: mmseg's inferencer for files, PIL images and arrays.

    Attributes:
        inferencer: mmseg's `MMSegInferencer` of this model.
    """

    inferencer: FileSegmentor

    @classmethod
    def of(cls, source: Source, device: str | None, allow_other_vae: bool) -> 'Segmentor':
        """Build the segmentor of a source that `prepare_source` has set up.

        Raises:
            ValueError: The weights or the VAE do not fit the config, or a step of its test pipeline is of another library.
        """
        dataset = (source.cfg.get('test_dataloader') or {}).get('dataset')
        if not dataset:
            raise ValueError(f"the config of '{source.where}' has no test_dataloader, whose pipeline a segmentor needs")
        check_segmentation_data(dataset, source.where)
        cfg = Config(dict(model=source.cfg['model'], test_dataloader=dict(dataset=dataset), visualizer=_VISUALIZER))
        cfg.default_scope, cfg.allow_other_vae = 'mmseg', allow_other_vae
        meta = dict(dataset_meta=dict(classes=source.classes), vae=source.vae)
        inferencer = FileSegmentor(
            cfg, Checkpoint(source.file or Path(source.where), source.weights, meta), device, fix=source.fix
        )
        source.vae = source.vae or vae_record(codec_of(inferencer.model))
        source.classes = tuple(map(str, inferencer.model.dataset_meta['classes']))
        found = cls(inferencer.model.eval(), source)
        found.inferencer = inferencer
        return found

    @property
    def palette(self) -> Sequence[Sequence[int]]:
        """A colour for each class, RGB from 0 to 255."""
        colours: Sequence[Sequence[int]] = self.model.dataset_meta['palette']
        return colours

    def segment(self, image: Picture) -> np.ndarray:
        """Label every pixel of a picture.

        Args:
            image: A file, a PIL image, or an array uint8[H, W, 3] in RGB, of any size.

        Returns:
            uint8[H, W] (uint16 with more than 256 classes): the labels, at the picture's size. `classes` has their names.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: It is no picture.
        """
        labels = self.inferencer(np.ascontiguousarray(rgb(image)[..., ::-1]), return_vis=False)['predictions']
        return np.asarray(labels).astype(np.uint8 if len(self.classes or ()) <= 256 else np.uint16)

    def overlay(self, image: Picture, labels: np.ndarray | None = None) -> Image.Image:
        """The picture with the labels as colours over it and the names of the classes.

        Args:
            image: As in `segment`.
            labels: What `segment` returned for it; None calls it.
        """
        labels = self.segment(image) if labels is None else labels
        return Image.fromarray(draw_segments(rgb(image), labels, self.classes or (), self.palette, OPACITY))
