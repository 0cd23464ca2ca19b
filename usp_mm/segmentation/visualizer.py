"""mmseg's visualizer, with names that can be read on small pictures."""

from typing import Any

import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.visualization import SegLocalVisualizer

from .picture import draw_segments


@VISUALIZERS.register_module()
class NamedSegVisualizer(SegLocalVisualizer):
    """Draws true and predicted labels as `draw_segments` does; mmseg's names are boxes without letters at 128 pixels."""

    def _draw_sem_seg(
        self, image: np.ndarray, sem_seg: PixelData, classes: list, palette: list, *args: Any, **kwargs: Any
    ) -> np.ndarray:
        labels = np.asarray(sem_seg.cpu().data)[0]
        drawn = draw_segments(image, labels, classes, palette, self.alpha)
        self.set_image(drawn)
        return drawn
