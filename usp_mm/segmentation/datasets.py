"""ADE20K's folder layout, checked before training, and the demo's scenes in it."""

from pathlib import Path

from mmseg.datasets import ADE20KDataset

from usp_mm.datasets.demo import SCENE_CLASSES
from usp_mm.registry import DATASETS


@DATASETS.register_module()
class ADE20KFolder(ADE20KDataset):
    """mmseg's `ADE20KDataset` (same arguments, local folders) that names what is missing when it is built.

    Raises:
        FileNotFoundError: a folder of the split is missing or holds no image; an image has no label map.
        ValueError: a label map has no image.
    """

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
        data_list: list[dict] = super().load_data_list()
        for sample in data_list:
            sample['num_classes'] = len(self._metainfo['classes'])
        return data_list

    def _files(self, kind: str, suffix: str) -> set[str]:
        """Names of the files in a folder of the split, relative to it and without suffix."""
        folder = Path(self.data_prefix[kind])
        if not folder.is_dir():
            raise FileNotFoundError(
                f"folder '{folder}' does not exist: ADE20K has images and annotations, each with training and validation; "
                'give the folder of both as data_root'
            )
        names = {path.relative_to(folder).as_posix().removesuffix(suffix) for path in folder.rglob(f'*{suffix}')}
        if not names:
            raise FileNotFoundError(f"no '*{suffix}' in '{folder}'")
        return names


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
