"""Data sets in COCO's format, checked before training: COCO itself and the demo's scenes of emoji."""

import json
import os
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset

from usp_mm.datasets.emoji_classes import EMOJI_CLASSES
from usp_mm.registry import DATASETS


@DATASETS.register_module()
class CocoInstances(CocoDataset):
    """mmdet's `CocoDataset` (same arguments, local files), which checks its files when it is built.

    Raises:
        FileNotFoundError: The annotation file, the folder of images or an image that the file lists is missing.
        ValueError: The annotation file has no category of a class; mmdet would leave its objects out in silence.
    """

    def load_data_list(self) -> list[dict]:
        file, folder = Path(self.ann_file), Path(self.data_prefix['img'])
        for kind, path, there in (('annotation file', file, file.is_file()), ('folder of images', folder, folder.is_dir())):
            if not there:
                raise FileNotFoundError(
                    f"{kind} '{path}' does not exist: COCO has annotations/instances_{{train,val}}2017.json, train2017 and "
                    'val2017; give the folder of these as data_root'
                )
        listed = json.loads(file.read_text())
        names, classes = {one['name'] for one in listed['categories']}, self._metainfo['classes']
        if absent := [name for name in classes if name not in names]:
            raise ValueError(
                f"'{file}' has no category '{absent[0]}' ({len(absent)} of {len(classes)} classes are missing): it has "
                f'{sorted(names)}; give its classes as metainfo=dict(classes=[…])'
            )
        stored = set(os.listdir(folder))
        if lost := [one['file_name'] for one in listed['images'] if one['file_name'] not in stored]:
            raise FileNotFoundError(
                f"no image '{folder / lost[0]}' ({len(lost)} of {len(listed['images'])} that '{file}' lists)"
            )
        found: list[dict[str, Any]] = super().load_data_list()
        return found


@DATASETS.register_module()
class DemoEmojiScenes(CocoInstances):
    """The scenes of `usp_mm.datasets.demo_scenes`: emoji of eight classes on a canvas."""

    METAINFO = dict(
        classes=tuple(EMOJI_CLASSES),
        palette=[
            (230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
            (240, 50, 230),
        ],
    )  # fmt: skip
