"""Pictures of segmentations."""

import numpy as np
from mmengine.structures import PixelData
from mmseg.registry import VISUALIZERS
from mmseg.structures import SegDataSample
from PIL import Image
from torch import from_numpy

from usp_mm.segmentation.picture import _inside, draw_segments

CLASSES, PALETTE = ('sky', 'tree', 'cat'), [(0, 0, 200), (0, 200, 0), (200, 0, 0)]


def scene():
    labels = np.zeros((100, 100), np.uint8)
    labels[60:, :50], labels[0, 0], labels[:, 99] = 1, 2, 255
    return np.full((100, 100, 3), 100, np.uint8), labels


def test_colours_are_mixed_and_classes_of_some_size_are_named():
    image, labels = scene()
    drawn = draw_segments(image, labels, CLASSES, PALETTE, 0.5)
    assert drawn[5, 40].tolist() == [50, 50, 150] and drawn[95, 3].tolist() == [50, 150, 50]
    assert drawn[0, 0].tolist() == [150, 50, 50] and drawn[50, 99].tolist() == [100, 100, 100]
    white = np.argwhere((drawn > 230).all(-1))
    assert {'tree' if y >= 60 and x < 50 else 'sky' for y, x in white} == {'sky', 'tree'} and not (white < 10).all(1).any()


def test_a_name_is_in_the_middle_of_the_region():
    mask = np.zeros((40, 60), bool)
    mask[10:21, 20:51] = True
    x, y = _inside(mask)
    assert y == 15 and 25 <= x <= 45
    assert _inside(np.ones((11, 11), bool)) == (5, 5)


def test_the_visualizer_draws_truth_and_prediction_so(tmp_path):
    image, labels = scene()
    visualizer = VISUALIZERS.build(dict(type='NamedSegVisualizer', name='named', alpha=0.5))
    visualizer.dataset_meta = dict(classes=CLASSES, palette=PALETTE)
    data = PixelData(data=from_numpy(labels)[None])
    both = SegDataSample(gt_sem_seg=data, pred_sem_seg=data)
    visualizer.add_datasample('scene', image, both, out_file=str(tmp_path / 'both.png'))
    expected = draw_segments(image, labels, CLASSES, PALETTE, 0.5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'both.png')), np.concatenate([expected, expected], axis=1))
