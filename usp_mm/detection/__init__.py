"""Object detection with mmdet, which needs mmcv's compiled operators.

Only `detector` and `datasets` need mmdet; importing this package imports neither.
"""

from usp_mm.renaming.lazy import imported_on_use

__all__ = ['CocoInstances', 'DemoEmojiScenes', 'SimpleFeaturePyramid', 'USPMaskRCNN', 'check_detection_packages']

__getattr__ = imported_on_use(
    __name__,
    {
        'datasets': ['CocoInstances', 'DemoEmojiScenes'],
        'detector': ['USPMaskRCNN'],
        'packages': ['check_detection_packages'],
        'pyramid': ['SimpleFeaturePyramid'],
    },
)
