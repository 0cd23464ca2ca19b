"""Label maps that say what is wrong with them."""

import numpy as np
from mmseg.datasets.transforms import LoadAnnotations

from usp_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadLabelMap(LoadAnnotations):
    """mmseg's `LoadAnnotations` (same arguments) that refuses a label which is no class.

    Such a label would be ignored in evaluation, and read beyond the logits in training.

    Raises:
        ValueError: the file is no image, or holds a label that is neither a class nor ignored (255).
    """

    def _load_seg_map(self, results: dict) -> None:
        path, num_classes = results['seg_map_path'], results['num_classes']
        try:
            super()._load_seg_map(results)
        except OSError as error:
            raise ValueError(f"cannot decode label map '{path}': {error}; replace or delete the file") from error
        labels = results['gt_seg_map']
        wrong = np.unique(labels[(labels != 255) & (labels >= num_classes)])
        if wrong.size:
            shift = int(results['reduce_zero_label'])
            valid = f'{shift} to {num_classes - 1 + shift}, {"0 or " if shift else ""}255 to ignore'
            raise ValueError(f"label {wrong[0] + shift} in '{path}': {num_classes} classes are labelled {valid}")
