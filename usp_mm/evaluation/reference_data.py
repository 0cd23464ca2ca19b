"""References that samples are compared with: ADM's `.npz` of statistics, or images.

ADM's reference files (`VIRTUAL_imagenet256_labeled.npz`) hold the mean and covariance of the whole training set for both
kinds of Inception features (mu, sigma, mu_s, sigma_s) and 10,000 of its images (arr_0), for precision and recall.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.datasets.class_names import class_difference
from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.npz import explain_broken

from .images import Images, NpzImages, is_npz, open_images, read_headers
from .inception import InceptionFeatures

#: Inception's features -> names of their mean and covariance in ADM's files.
ADM_STATISTICS = dict(pool=('mu', 'sigma'), spatial=('mu_s', 'sigma_s'))

#: Mean float64[D] and covariance float64[D, D] by name of the features.
Moments = dict[str, tuple[Tensor, Tensor]]


class Reference:
    """A reference on disk, checked when it is opened: ADM's `.npz`, an `.npz` with images only, or a folder of images.

    Args:
        path: Path of the file or folder.
        adm: Whether the features are Inception's, so that ADM's statistics can be used.
        num_neighbours: Number of images for precision and recall, evenly spaced over all; 0 for none.
        img_size: Side in pixels that a folder's images are centre-cropped to, as in ADM; None keeps their size.
        num_workers: Number of processes that decode a folder's images.
        with_label: See `FolderImages`.

    Attributes:
        has_moments: Whether mean and covariance come from the file.
        images: Reader of the images; None if none are needed.

    Raises:
        FileNotFoundError: The path does not exist, or the folder has no image.
        ValueError: An `.npz` has neither statistics nor images, only some of the statistics, or no images although they are
            needed.
    """

    def __init__(
        self,
        path: str | Path,
        adm: bool,
        num_neighbours: int,
        img_size: int | None = None,
        num_workers: int = 0,
        with_label: bool | None = None,
    ) -> None:
        self.path, self.num_neighbours, self.img_size = Path(path), num_neighbours, img_size
        self._hash: str | None = None
        found = read_headers(self.path) if is_npz(path) else None
        self.has_moments = found is not None and adm and _has_statistics(self.path, found)
        if found is not None and NpzImages.KEY not in found:
            _check_images_not_needed(self.path, found, adm, self.has_moments, num_neighbours)
        needs_images = num_neighbours > 0 or not self.has_moments
        self.images: Images | None = open_images(path, img_size, num_workers, with_label) if needs_images else None

    @property
    def name(self) -> str:
        """Name of the file or folder, without its path."""
        return self.path.absolute().name

    @property
    def neighbour_indices(self) -> list[int]:
        """Numbers of the images for precision and recall."""
        if self.images is None:
            return []
        num = min(self.num_neighbours, self.images.num)
        return [i * self.images.num // num for i in range(num)]

    def content_hash(self, cache: Path | None = None) -> str:
        """SHA-256 of the file, or of the folder's images (see `folder_hash`); computed once."""
        if self._hash is None:
            self._hash = sha256(self.path) if self.images is None else self.images.content_hash(cache)
        return self._hash

    def moments(self) -> Moments:
        """Mean and covariance from ADM's file."""
        with explain_broken(self.path), np.load(self.path, allow_pickle=False) as arrays:
            return {
                name: (torch.from_numpy(arrays[mean]).double(), torch.from_numpy(arrays[covariance]).double())
                for name, (mean, covariance) in ADM_STATISTICS.items()
            }


def warn_of_other_classes(sampling: Mapping[str, Any], reference: Reference) -> None:
    """Log a warning if the class folders of a reference are not the classes of the samples.

    Args:
        sampling: Facts of the samples: `classes`, the names of their classes, or `num_classes`, if known.
        reference: The reference.
    """
    theirs, number = getattr(reference.images, 'classes', None), sampling.get('num_classes')
    if not theirs:
        return
    if ours := sampling.get('classes'):
        difference = class_difference(sorted(ours), sorted(theirs)).split('; moved')[0]
    else:
        difference = f'{len(theirs)} instead of {number}' if number not in (None, len(theirs)) else ''
    if difference and not difference.startswith('moved'):
        MMLogger.get_current_instance().warning(
            f"the class folders of reference '{reference.path}' are not the samples' classes ({difference}): "
            'the difference counts as one between the images'
        )


def _has_statistics(path: Path, found: dict) -> bool:
    """Whether an `.npz` holds ADM's statistics; ValueError if it holds only some of them, or if they have other shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for feature, (mean, covariance) in ADM_STATISTICS.items():
        size = InceptionFeatures.SIZES[feature]
        shapes |= {mean: (size,), covariance: (size, size)}
    present = [name for name in shapes if name in found]
    if not present:
        return False
    if len(present) < len(shapes):
        raise ValueError(
            f'reference {path} holds {present} but not {[name for name in shapes if name not in found]}: all of '
            "ADM's statistics are needed, or none (they are then computed from its images)"
        )
    for name, shape in shapes.items():
        if found[name][0] != shape:
            raise ValueError(f"reference {path}: '{name}' has shape {found[name][0]}, ADM's statistics have {shape}")
    return True


def _check_images_not_needed(path: Path, found: dict, adm: bool, has_moments: bool, num_neighbours: int) -> None:
    if not adm:
        raise ValueError(
            f'reference {path} holds no images: expected arr_0, found {sorted(found)} (statistics of one '
            'network are of no use for another)'
        )
    if not has_moments:
        names = ', '.join(name for pair in ADM_STATISTICS.values() for name in pair)
        raise ValueError(
            f'reference {path} holds neither statistics nor images, found {sorted(found)}: '
            f"expected ADM's ({names}), images (arr_0), or both"
        )
    if num_neighbours:
        raise ValueError(
            f'reference {path} holds statistics but no images (arr_0), which precision and recall are measured '
            'against: take a file with images, or leave the two out (num_reference_pr=0)'
        )
