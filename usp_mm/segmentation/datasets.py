"""Data sets in ADE20K's folder layout, checked before training: ADE20K itself and the demo's scenes."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmseg.datasets import ADE20KDataset
from torch import Tensor

from usp_mm.datasets.demo import SCENE_CLASSES
from usp_mm.images import list_images, log_scan
from usp_mm.registry import DATASETS


@DATASETS.register_module()
class ADE20KFolder(ADE20KDataset):
    """mmseg's `ADE20KDataset` (same arguments, local folders), which checks its files when it is built.

    Hidden files and folders are ignored. A pipeline step `LoadImageFromFile` with imdecode_backend='pillow', which mmseg's
    inferencer looks for, is replaced by `LoadImage`, so that images are decoded as in the rest of this package.

    Raises:
        FileNotFoundError: A folder of the split is missing or holds no image, or an image has no label map.
        ValueError: A label map has no image.
    """

    def __init__(self, *args: Any, pipeline: Sequence[dict | Callable] = (), **kwargs: Any) -> None:
        super().__init__(*args, pipeline=[_decoded_as_everywhere(step) for step in pipeline], **kwargs)

    def load_data_list(self) -> list[dict]:
        images = self._files('img_path', self.img_suffix)
        labels = self._files('seg_map_path', self.seg_map_suffix)
        if missing := sorted(images - labels):
            raise FileNotFoundError(
                f"no label map for {len(missing)} of {len(images)} images, such as '{missing[0]}{self.img_suffix}': expected "
                f"'{self.data_prefix['seg_map_path']}/{missing[0]}{self.seg_map_suffix}'"
            )
        if extra := sorted(labels - images):
            raise ValueError(
                f"no image for {len(extra)} of {len(labels)} label maps, such as '{extra[0]}{self.seg_map_suffix}': expected "
                f"'{self.data_prefix['img_path']}/{extra[0]}{self.img_suffix}'"
            )
        wanted = {os.path.join(self.data_prefix['img_path'], name + self.img_suffix) for name in images}
        return [info for info in super().load_data_list() if info['img_path'] in wanted]

    def prepare_data(self, idx: int) -> Any:
        """Run a sample through the pipeline and check its labels.

        Raises:
            ValueError: A file can't be decoded, or a label is neither a class nor 255 (ignored). Otherwise evaluation would
                skip such a label, and training would index beyond the logits.
        """
        info = self.get_data_info(idx)
        try:
            data = super().prepare_data(idx)
        except FileNotFoundError:
            raise
        except OSError as error:
            files = f"'{info['img_path']}' or its label map '{info['seg_map_path']}'"
            raise ValueError(f'cannot decode {files}: {error}; replace or delete the file') from error
        samples = data['data_samples'] if isinstance(data, dict) and 'data_samples' in data else []
        for sample in samples if isinstance(samples, list) else [samples]:
            self._check_labels(sample.gt_sem_seg.data, info)
        return data

    def _check_labels(self, labels: Tensor, info: dict) -> None:
        num_classes, shift = len(self._metainfo['classes']), int(self.reduce_zero_label)
        wrong = labels[(labels != 255) & (labels >= num_classes)]
        if wrong.numel():
            valid = f'{shift} to {num_classes - 1 + shift}, {"0 or " if shift else ""}255 to ignore'
            raise ValueError(
                f"label {int(wrong[0]) + shift} in '{info['seg_map_path']}': {num_classes} classes are labelled {valid}"
            )

    def _files(self, kind: str, suffix: str) -> set[str]:
        """Names of the files in a folder of the split, relative to the folder and without suffix."""
        folder = Path(self.data_prefix[kind])
        if not folder.is_dir():
            raise FileNotFoundError(
                f"folder '{folder}' does not exist: ADE20K has images and annotations, each with training and validation; "
                'give the folder of both as data_root'
            )
        listing = list_images(folder, [suffix])
        log_scan(listing)
        names = {path.removesuffix(suffix) for path in listing.images if path.endswith(suffix)}
        if not names:
            raise FileNotFoundError(f"no '*{suffix}' in '{folder}'")
        return names


def _decoded_as_everywhere(step: Any) -> Any:
    if isinstance(step, dict) and step.get('type') == 'LoadImageFromFile' and step.get('imdecode_backend') == 'pillow':
        return dict(type='LoadImage', **{k: v for k, v in step.items() if k not in ('type', 'imdecode_backend', 'color_type')})
    return step


@DATASETS.register_module()
class DemoScenes(ADE20KFolder):
    """The scenes of `usp_mm.datasets.demo`: digits 0 to 9 on a canvas."""

    METAINFO = dict(
        classes=SCENE_CLASSES,
        palette=[
            [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48], [145, 30, 180], [70, 240, 240],
            [240, 50, 230], [210, 245, 60], [250, 190, 212], [40, 40, 40],
        ],
    )  # fmt: skip
