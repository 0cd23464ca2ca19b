"""What samples are compared with: ADM's `.npz` of statistics, or images.

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
from usp_mm.files import sha256

from .images import Images, NpzImages, is_npz, open_images, read_headers
from .inception import InceptionFeatures

#: Inception's features, and ADM's names of their mean and covariance.
ADM_STATISTICS = dict(pool=('mu', 'sigma'), spatial=('mu_s', 'sigma_s'))

#: Mean float64[D] and covariance float64[D, D] by name of the features.
Moments = dict[str, tuple[Tensor, Tensor]]


class Reference:
    """A reference on disk, checked before any work: ADM's `.npz`, an `.npz` with images only, or a folder of images.

    Args:
        path: of the file or folder.
        adm: whether ADM's statistics are of use: features are Inception's.
        num_neighbours: images for precision and recall, evenly spaced over all of them; 0 for none.
        img_size: side to centre-crop a folder's images to, as ADM does; as they are if None.
        num_workers: processes that decode a folder's images.
        with_label: see `FolderImages`.

    Attributes:
        has_moments: whether mean and covariance come from the file.
        images: None where none are needed.

    Raises:
        FileNotFoundError: nothing at the path, or no image in the folder.
        ValueError: an `.npz` with neither statistics nor images, with a part of the statistics, or without images where
            they are needed.
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
        """Of the file or folder."""
        return self.path.absolute().name

    @property
    def neighbour_indices(self) -> list[int]:
        """Numbers of the images for precision and recall."""
        if self.images is None:
            return []
        num = min(self.num_neighbours, self.images.num)
        return [i * self.images.num // num for i in range(num)]

    def content_hash(self, cache: Path | None = None) -> str:
        """SHA-256 of the file, or over the folder's images (see `folder_hash`); computed once."""
        if self._hash is None:
            self._hash = sha256(self.path) if self.images is None else self.images.content_hash(cache)
        return self._hash

    def moments(self) -> Moments:
        """The file's own."""
        with np.load(self.path, allow_pickle=False) as arrays:
            return {
                name: (torch.from_numpy(arrays[mean]).double(), torch.from_numpy(arrays[covariance]).double())
                for name, (mean, covariance) in ADM_STATISTICS.items()
            }


def warn_of_other_classes(sampling: Mapping[str, Any], reference: Reference) -> None:
    """Say in the log which class folders of a reference the samples are not of, and the other way round.

    Args:
        sampling: `classes`, names of the samples' classes, or `num_classes`, where they are known.
    """
    theirs, number = getattr(reference.images, 'classes', None), sampling.get('num_classes')
    if not theirs:
        return
    if ours := sampling.get('classes'):
        told = class_difference(sorted(ours), sorted(theirs)).split('; moved')[0]
    else:
        told = f'{len(theirs)} instead of {number}' if number not in (None, len(theirs)) else ''
    if told and not told.startswith('moved'):
        MMLogger.get_current_instance().warning(
            f"the class folders of reference '{reference.path}' are not the samples' classes ({told}): "
            'the difference counts as one between the images'
        )


def _has_statistics(path: Path, found: dict) -> bool:
    """Whether an `.npz` holds all of ADM's statistics; ValueError if a part of them, or of other shapes."""
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
