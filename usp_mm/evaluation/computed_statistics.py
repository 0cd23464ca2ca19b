"""Statistics of a reference's images, computed once by all processes together and cached by a hash of their inputs."""

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_reduce, broadcast_object_list, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor, nn
from tqdm import tqdm

from usp_mm.datasets.main_process import decide_on_rank0, run_on_rank0
from usp_mm.fileio.atomic import write_whole
from usp_mm.fileio.npz import explain_broken
from usp_mm.fileio.outputs import check_folder
from usp_mm.functional.metrics import RunningMoments

from .collect import NumberedFeatures
from .extractors import extract_batch
from .reference_data import Moments, Reference


class ReferenceStatistics:
    """Statistics of a reference's features, on the CPU.

    Args:
        moments: Mean and covariance of each feature.
        neighbours: Features of reference images for precision and recall, float32[M, D]; M may be 0.
    """

    def __init__(self, moments: Moments, neighbours: Tensor) -> None:
        self.moments, self.neighbours = moments, neighbours

    def moments_on(self, device: torch.device, feature: str) -> tuple[Tensor, Tensor]:
        """Mean and covariance of a feature, moved to a device."""
        mean, covariance = self.moments[feature]
        return mean.to(device), covariance.to(device)


def cache_folder(folder: str | Path | None = None) -> Path:
    """The cache folder: `folder` if given, else `$USP_CACHE`, else `~/.cache/usp_mm`."""
    return Path(folder or os.environ.get('USP_CACHE') or '~/.cache/usp_mm').expanduser()


def usable_cache_folder(folder: str | Path | None = None) -> Path:
    """`cache_folder`, or a folder for temporary files in place of a default that cannot be written to, which the log says.

    Raises:
        OSError: `folder` or `$USP_CACHE` cannot be written to.
    """
    option = 'cache_dir' if folder else 'USP_CACHE' if os.environ.get('USP_CACHE') else None
    try:
        found = cache_folder(folder)
        check_folder(found, option or 'USP_CACHE')
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        if option is not None:
            raise
        found = _own_temporary_folder()
        MMLogger.get_current_instance().warning(
            f"statistics of references are kept in '{found}', since ~/.cache cannot be written to ({error}): set USP_CACHE"
        )
    return found


def _own_temporary_folder() -> Path:
    folder = Path(tempfile.gettempdir(), f'usp_mm-{os.getuid()}')
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"'{folder}' is another user's: set USP_CACHE to a folder that you can write to")
    return folder


def reference_statistics(
    reference: Reference,
    extractor: nn.Module,
    features: Sequence[str],
    neighbours: str,
    device: torch.device,
    batch_size: int = 64,
    cache_dir: str | Path | None = None,
) -> ReferenceStatistics | None:
    """Read the statistics from the reference or the cache, or compute and cache them.

    Must be called on every process. The result is None on all but the main process.

    Args:
        reference: The reference.
        extractor: Feature extractor on `device`; its `identity` is part of the cache's key.
        features: Names of the features whose mean and covariance are needed.
        neighbours: Name of the feature for precision and recall.
        device: Device of the computation.
        batch_size: Images per call of the extractor; it changes the result only by rounding.
        cache_dir: See `usable_cache_folder`.

    Raises:
        SystemExit: On the other processes, if the main one fails in a part that it runs alone.
    """
    found: ReferenceStatistics | None = None
    if reference.images is not None:
        wanted = () if reference.has_moments else tuple(features)
        file = decide_on_rank0(lambda: _cache_file(reference, extractor, wanted, neighbours, usable_cache_folder(cache_dir)))
        found = run_on_rank0(lambda: _read(file, wanted))
        if not decide_on_rank0(lambda: found is not None):
            found = _compute(reference, extractor, wanted, neighbours, device, batch_size)
            run_on_rank0(lambda: _write(file, found, reference))
    return run_on_rank0(lambda: _complete(reference, found))


def _complete(reference: Reference, found: ReferenceStatistics | None) -> ReferenceStatistics:
    """Combine the reference's own statistics with those `found` from its images."""
    assert found is not None or reference.has_moments
    moments = reference.moments() if found is None or reference.has_moments else found.moments
    return ReferenceStatistics(moments, torch.zeros(0, 0) if found is None else found.neighbours)


def _cache_file(reference: Reference, extractor: nn.Module, wanted: Sequence[str], neighbours: str, cache: Path) -> Path:
    key = dict(
        content=reference.content_hash(cache),
        image_size=reference.img_size,
        extractor=extractor.identity,
        moments=list(wanted),
        neighbours=[neighbours, reference.num_neighbours],
    )
    if reference.images is not None and reference.images.decoding is not None:
        key['decoding'] = reference.images.decoding
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache / 'references' / f'{reference.path.stem}-{digest[:24]}.npz'


def _compute(
    reference: Reference, extractor: nn.Module, wanted: Sequence[str], neighbours: str, device: torch.device, batch_size: int
) -> ReferenceStatistics:
    """Compute statistics in one pass over the images, where each process takes its share."""
    rank, world = get_dist_info()
    images, chosen = reference.images, set(reference.neighbour_indices)
    assert images is not None
    moments = {name: RunningMoments() for name in wanted}
    rows = NumberedFeatures()
    progress = tqdm(desc=f'reference {reference.path.name}', total=images.num, unit='image', leave=False, disable=rank > 0)
    with progress:
        for numbers, batch in images.batches(batch_size, rank, world):
            picked = [row for row, number in enumerate(numbers) if number in chosen]
            if moments or picked:
                found = extract_batch(extractor, batch.to(device, non_blocking=True))
                for name, running in moments.items():
                    running.update(found[name])
                rows.add([numbers[row] for row in picked], {neighbours: found[neighbours][picked]})
            progress.update(len(numbers) * world)
    for running in moments.values():
        _add_up(running)
    nearest = rows.collect(len(chosen), f"reference '{reference.path}'") if chosen else {}
    found_moments = {}
    for name, running in moments.items():
        mean, covariance = running.mean_covariance()
        found_moments[name] = mean.cpu(), covariance.cpu()
    return ReferenceStatistics(found_moments, nearest.get(neighbours, torch.zeros(0, 0)))


def _add_up(moments: RunningMoments) -> None:
    """Sum the moments over all processes, in place."""
    count = torch.tensor([moments.count])
    all_reduce(count)
    size = [len(moments.total)]
    broadcast_object_list(size)
    if moments.count == 0:
        moments.total, moments.outer = torch.zeros(size[0]).double(), torch.zeros(size[0], size[0]).double()
    all_reduce(moments.total)
    all_reduce(moments.outer)
    moments.count = int(count)


def _write(file: Path, statistics: ReferenceStatistics, reference: Reference) -> None:
    arrays: dict[str, Any] = {'neighbours': statistics.neighbours.numpy()}
    for name, (mean, covariance) in statistics.moments.items():
        arrays |= {f'mean_{name}': mean.numpy(), f'covariance_{name}': covariance.numpy()}
    file.parent.mkdir(parents=True, exist_ok=True)
    with write_whole(file) as out:
        np.savez(out, **arrays)
    MMLogger.get_current_instance().info(f"statistics of reference '{reference.path}' are kept in {file}")


def _read(file: Path, wanted: Sequence[str]) -> ReferenceStatistics | None:
    """Read cached statistics; None if the file does not exist or is broken."""
    if not file.is_file():
        return None
    try:
        with explain_broken(file), np.load(file, allow_pickle=False) as arrays:
            moments = {
                name: (torch.from_numpy(arrays[f'mean_{name}']), torch.from_numpy(arrays[f'covariance_{name}']))
                for name in wanted
            }
            return ReferenceStatistics(moments, torch.from_numpy(arrays['neighbours']))
    except ValueError as error:
        MMLogger.get_current_instance().warning(f"the kept statistics '{file}' are broken ({error}): they are computed anew")
        return None
