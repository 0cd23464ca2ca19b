"""Folders of images, with mmpretrain's class order and one clear error for each thing that can be wrong."""

from collections.abc import Sequence
from typing import NamedTuple

from mmengine import fileio
from mmpretrain.datasets import CustomDataset, ImageNet
from mmpretrain.datasets.custom import find_folders, get_samples

from usp_mm.registry import DATASETS


class FolderScan(NamedTuple):
    """The images of a folder in order; `labels` and `classes` are None for a folder without sub-folders."""

    paths: list[str]
    labels: list[int] | None
    classes: tuple[str, ...] | None


def scan_image_folder(
    root: str, extensions: Sequence[str] = ImageNet.IMG_EXTENSIONS, with_label: bool | None = None
) -> FolderScan:
    """List a folder with one sub-folder a class, or a flat folder of images.

    Class k is the k-th sub-folder in alphabetical order, and the images of a class follow in
    alphabetical order, as in mmpretrain's `CustomDataset` and torchvision's `ImageFolder`.

    Args:
        root: the folder; any mmengine file backend.
        extensions: file endings that are images, lower case.
        with_label: whether sub-folders are classes; if None, they are when there are any.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
        ValueError: a class folder holds no image, or `root` holds splits instead of classes.
    """
    if not fileio.isdir(root):
        raise FileNotFoundError(f"image folder '{root}' does not exist: give the folder that holds the class folders")
    folders, folder_to_idx = find_folders(root)
    if with_label is None:
        with_label = bool(folders)
    if with_label and {'train', 'val'} <= set(folders):
        raise ValueError(f"'{root}' holds the splits {folders}, not classes: give one of them, like '{root}/train'")

    def is_image(name: str) -> bool:
        return name.lower().endswith(tuple(extensions))

    samples, empty = get_samples(root, folder_to_idx if with_label else None, is_image)
    if not samples:
        raise FileNotFoundError(f"no image in '{root}': looked for {', '.join(sorted(extensions))}")
    if empty:
        names = ', '.join(f"'{name}'" for name in sorted(empty))
        raise ValueError(f"no image in class folder {names} of '{root}': fill or delete it (class numbers follow the folders)")
    if not with_label:
        return FolderScan(samples, None, None)
    return FolderScan([path for path, _ in samples], [label for _, label in samples], tuple(folders))


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's `CustomDataset`, which only warns of a class folder without images: here it is an error."""

    def _find_samples(self) -> list:
        scan = scan_image_folder(self.img_prefix, self.extensions, self.with_label)
        if scan.labels is None or scan.classes is None:
            return scan.paths
        classes = self._metainfo.setdefault('classes', scan.classes)
        if len(classes) != len(scan.classes):
            raise ValueError(
                f"'{self.img_prefix}' holds {len(scan.classes)} class folders, the config names {len(classes)} classes"
            )
        return list(zip(scan.paths, scan.labels, strict=True))
