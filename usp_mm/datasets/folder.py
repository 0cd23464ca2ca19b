"""Data sets from folders of images, with mmpretrain's class order."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine import fileio
from mmpretrain.datasets import CustomDataset

from usp_mm.images import FolderListing, image_endings, list_images, log_scan, looked_for, shown
from usp_mm.registry import DATASETS

from .class_names import check_renaming
from .label_subset import label_subset


class FolderScan(NamedTuple):
    """The images of a folder in order; `labels` and `classes` are None if the folder is read without classes."""

    paths: list[str]
    labels: list[int] | None
    classes: tuple[str, ...] | None


def scan_image_folder(root: str, extensions: Iterable[str] | None = None, with_label: bool | None = None) -> FolderScan:
    """List a folder with one sub-folder per class, or a flat folder of images, and log what was taken and left out.

    Class k is the k-th sub-folder in alphabetical order, and the images of a class, at any depth in its folder, follow in
    alphabetical order, as in mmpretrain's `CustomDataset` and torchvision's `ImageFolder`. Links are followed. Names that
    begin with '.' and the previews of operating systems never count; a link to nothing is left out.

    Args:
        root: Path or address of the folder, for any mmengine file backend.
        extensions: File endings of images; by default all that Pillow reads (`usp_mm.images.image_endings`).
        with_label: If True, sub-folders are classes, and images beside them are left out; if False, all images at any depth
            are taken, without classes; if None, the folder's contents decide.

    Raises:
        FileNotFoundError: The folder does not exist, or it holds no image.
        ValueError: A class folder holds no image; or `with_label` is None and `root` holds folders 'train' and 'val', or
            images both directly and in sub-folders; see also `usp_mm.images.list_images`.
    """
    if not fileio.isdir(root):
        raise FileNotFoundError(f"image folder '{root}' does not exist: give the folder that holds the class folders")
    listing = list_images(root, extensions)
    if with_label is None and {'train', 'val'} <= set(listing.folders):
        raise ValueError(
            f"'{root}' holds the splits {listing.folders}, not classes: give one of them, like '{root}/train', or "
            'with_label=True (--layout classes of a tool) if these are classes'
        )
    if not listing.images:
        left_out = f' ({"; ".join(listing.left_out())})' if listing.found else ''
        raise FileNotFoundError(f"no image in '{root}'{left_out}: {looked_for(extensions)}")
    loose = [path for path in listing.images if '/' not in path]
    if with_label is None:
        with_label = _has_classes(listing, loose)
    if with_label:
        return _with_classes(listing, loose)
    log_scan(listing, empty=[] if len(loose) < len(listing.images) else listing.folders)
    return FolderScan(listing.images, None, None)


def _has_classes(listing: FolderListing, loose: Sequence[str]) -> bool:
    nested = len(listing.images) - len(loose)
    if loose and nested:
        folders = sorted({path.split('/')[0] for path in listing.images if '/' in path})
        some = ', '.join(f"'{shown(name)}'" for name in folders[:3]) + (', …' if len(folders) > 3 else '')
        raise ValueError(
            f"'{listing.root}' can be read in two ways: {len(loose)} images lie in it, {nested} in its sub-folders ({some}). "
            f'Choose with_label=True (--layout classes of a tool) for the {nested}, whose classes are the sub-folders, or '
            f'with_label=False (--layout flat) for all {len(listing.images)} without classes; or move one kind elsewhere (a '
            "folder whose name begins with '.' does not count)"
        )
    return not loose


def _with_classes(listing: FolderListing, loose: Sequence[str]) -> FolderScan:
    root = listing.root
    if len(loose) == len(listing.images):
        raise ValueError(
            f"'{root}' holds {len(loose)} images and no class folder with images: with_label=False (--layout flat of a tool) "
            'reads it without classes'
        )
    members: dict[str, list[str]] = {name: [] for name in listing.folders}
    for path in listing.images:
        name, nested, _ = path.partition('/')
        if nested:
            members[name].append(path)
    if empty := [f"'{shown(name)}'" for name, paths in members.items() if not paths]:
        raise ValueError(
            f"no image in class folder {', '.join(empty)} of '{root}': fill or delete it (class numbers follow the folders)"
        )
    log_scan(listing, beside=loose)
    labels = [label for label, paths in enumerate(members.values()) for _ in paths]
    return FolderScan([path for paths in members.values() for path in paths], labels, tuple(members))


@DATASETS.register_module()
class ImageFolder(CustomDataset):
    """mmpretrain's `CustomDataset` with the files, the classes and the errors of `scan_image_folder`.

    Args:
        with_label: If True, sub-folders are classes, and images beside them are left out with a warning; if False, all images
            at any depth are taken, without classes; if None, sub-folders are classes, and images beside them are an error.
        extensions: File endings of images; by default all that Pillow reads.
        labels_per_class: Keep only so many images of each class, see `label_subset`; None keeps all.
        labels_seed: Seed of that choice.
        kwargs: Arguments of `CustomDataset`.
    """

    def __init__(
        self,
        data_root: str = '',
        data_prefix: str | dict = '',
        ann_file: str = '',
        with_label: bool | None = None,
        extensions: Sequence[str] | None = None,
        labels_per_class: int | None = None,
        labels_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        self._layout_chosen = with_label is not None
        self.labels_per_class, self.labels_seed = labels_per_class, labels_seed
        super().__init__(
            data_root=data_root,
            data_prefix=data_prefix,
            ann_file=ann_file,
            with_label=with_label is not False,
            extensions=sorted(image_endings() if extensions is None else extensions),
            **kwargs,
        )

    def filter_data(self) -> list[dict]:
        data_list: list[dict] = super().filter_data()
        if self.labels_per_class is None:
            return data_list
        labels = np.array([one.get('gt_label', 0) for one in data_list], dtype=np.int64)
        classes = self.CLASSES if self.with_label else None
        rows = label_subset(labels, self.labels_per_class, self.labels_seed, classes, f"'{self.img_prefix}'")
        return [data_list[row] for row in rows]

    def _find_samples(self) -> list:
        scan = scan_image_folder(self.img_prefix, self.extensions, self.with_label if self._layout_chosen else None)
        if not self.with_label:
            return scan.paths
        if scan.labels is None or scan.classes is None:
            raise ValueError(
                f"'{self.img_prefix}' holds {len(scan.paths)} images and no class folder with images: with_label=False reads "
                'it without classes'
            )
        classes = self._metainfo.setdefault('classes', scan.classes)
        check_renaming(scan.classes, classes, f"'{self.img_prefix}'")
        return list(zip(scan.paths, scan.labels, strict=True))
