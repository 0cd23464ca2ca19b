"""Take over latents that MAR's and USP's official code cached: a folder of `.npz`, each with `moments` and `moments_flip`.

Both are float [2C, h, w], mean and log-variance, unscaled, of an image's centre crop (ADM's) and of its mirror image.
Nothing is encoded again, unless images are given to check the latents against.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine import fileio
from mmengine.dist import barrier, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from usp_mm.fileio.atomic import explain_full_disk
from usp_mm.fileio.locks import locked
from usp_mm.vaes import LatentCodec

from ..folder import FolderScan, scan_image_folder
from ..main_process import decide_on_rank0, run_on_rank0
from .crops import AS_STORED, CroppedImages, stack_or_error
from .labels import read_sample_paths
from .manifest import LOCK
from .plan import CacheSpec, check_codec, finish, make_plan, settle, with_begun_shards
from .shard_filling import check_storable
from .shards import Shard, all_shards
from .writer import encode_views

SUFFIX = '.npz'
#: Arrays of a file, in the order of the views.
KEYS = ('moments', 'moments_flip')
#: Largest difference from encoding again, as a share of the latents' standard deviation: TF32 and bfloat16 stay below it.
TOLERANCE = 0.05
#: Samples whose scale is looked at before anything is written.
_PROBED = 64
#: Of scaled latents; those that were scaled twice have about 0.18.
_DEVIATION = (0.22, 4.0)


def import_cache(
    source: str,
    out: str | Path,
    codec: LatentCodec,
    dtype: str = 'float16',
    store: str = 'moments',
    shard_size: int | None = None,
    images: str | None = None,
    num_checked: int = 8,
    num_workers: int = 2,
    batch_size: int = 256,
) -> dict[str, Any]:
    """Write a latent cache from a folder of `.npz` files, or the missing part of one. On several processes, see `write_cache`.

    Args:
        source: Folder with one sub-folder a class, or a folder with only files.
        out: The cache's folder.
        codec: The VAE that made the latents; the cache gets its name and hash.
        dtype, store, shard_size: As in `CacheSpec`; image size and views follow from the files.
        images: Folder of the images that were encoded: `num_checked` of them are encoded again and compared.
        num_checked: Number of images to compare.
        num_workers: Processes that read files.
        batch_size: Files read at a time.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: The folder does not exist or has no `.npz`, or an image does not exist.
        ValueError: A file's arrays are not like the first file's, or the latents belong to another VAE.
        OSError: The disk is, or would get, full.
    """
    out, logger = Path(out), MMLogger.get_current_instance()
    rank, world_size = get_dist_info()
    with ExitStack() as held:

        def begin() -> tuple[dict[str, Any], bool]:
            plan, files = _plan(source, out, codec, dict(dtype=dtype, store=store, shard_size=shard_size), images, num_checked)
            taken = f"another process is writing latent cache '{out}': wait for it or stop it"
            return settle(out, plan, files, lock=lambda: held.enter_context(locked(out / LOCK, taken)))

        plan, complete = decide_on_rank0(begin)
        if complete:
            logger.info(f"latent cache '{out}' is complete already: nothing to do")
            return plan
        names = [f'{name}{SUFFIX}' for name in read_sample_paths(out, plan)]
        mine = [shard for shard in all_shards(out, plan)[rank::world_size] if not shard.is_whole()]
        held.enter_context(explain_full_disk(out, lambda: sum(s.num_bytes for s in mine if not s.is_whole())))
        dataset = NpzMoments(source, names, plan)
        with tqdm(total=sum(shard.count for shard in mine), unit='img', disable=rank > 0, desc='importing') as progress:
            for shard in mine:
                _fill(shard, dataset, plan, batch_size, num_workers, progress)
        barrier()
        run_on_rank0(lambda: finish(out, plan))
    if rank == 0:
        logger.info(f"latent cache '{out}' is complete: {plan['num_samples']} samples of '{source}'")
    barrier()
    return plan


def _fill(shard: Shard, dataset: 'NpzMoments', plan: dict[str, Any], batch_size: int, num_workers: int, progress: tqdm) -> None:
    rows = range(shard.start, shard.start + shard.count)
    batches = [list(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=stack_or_error)
    with shard.writer() as writer:
        for batch, moments in zip(batches, loader, strict=True):
            if isinstance(moments, ValueError):
                raise moments
            check_storable(moments, shard, [str(dataset.names[row]) for row in batch], plan)
            writer.write(moments)
            progress.update(len(batch))


class NpzMoments(Dataset):
    """Sample i -> float32[V, 2C, h, w]; or the error that was met, which the main process raises."""

    def __init__(self, root: str, names: list[str], plan: dict[str, Any]) -> None:
        self.root, self.names, self.keys = root, np.array(names), KEYS[: len(plan['views'])]
        self.shape = (2 * plan['channels'], plan['latent_size'], plan['latent_size'])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor | ValueError:
        path = fileio.join_path(self.root, str(self.names[index]))
        try:
            return self._read(path)
        except ValueError as error:
            return error

    def _read(self, path: str) -> Tensor:
        arrays = read_moments(path)
        for key in self.keys:
            if key not in arrays or arrays[key].shape != self.shape or arrays[key].dtype.kind != 'f':
                found = 'no such array' if key not in arrays else f'{arrays[key].dtype}{list(arrays[key].shape)}'
                raise ValueError(
                    f"'{path}': {key} must be float{list(self.shape)} for this VAE and image size, found {found}: "
                    'name the VAE and the image size that were encoded'
                )
        return torch.from_numpy(np.stack([arrays[key] for key in self.keys]).astype(np.float32))


def read_moments(path: str) -> dict[str, np.ndarray]:
    """Read the arrays of a file as data.

    Raises:
        ValueError: The file is broken or no `.npz`.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in KEYS if key in archive}
    except Exception as error:  # numpy and zipfile raise OSError, BadZipFile, ValueError, KeyError, EOFError, zlib.error
        raise ValueError(f"cannot read '{path}' ({' '.join(str(error).split())[:200]}): fetch or write it again") from error


def _scan(source: str) -> FolderScan:
    scan = scan_image_folder(source, extensions=(SUFFIX,))
    other = next((path for path in scan.paths if not path.endswith(SUFFIX)), None)
    if other is not None:
        raise ValueError(f"'{other}' of '{source}' must end in {SUFFIX}, in lower case: rename it")
    return scan


def _plan(
    source: str, out: Path, codec: LatentCodec, stored: dict[str, Any], images: str | None, num_checked: int
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Check the files' latents, and return what `make_plan` returns."""
    scan = _scan(source)
    first = fileio.join_path(source, scan.paths[0])
    arrays = read_moments(first)
    if KEYS[0] not in arrays or arrays[KEYS[0]].ndim != 3 or arrays[KEYS[0]].shape[0] != codec.moment_channels:
        found = 'no such array' if KEYS[0] not in arrays else f'{list(arrays[KEYS[0]].shape)}'
        raise ValueError(
            f"'{first}': {KEYS[0]} must be [{codec.moment_channels}, h, w] for VAE '{codec.name}', found {found}: "
            'name the VAE that was used'
        )
    flip = KEYS[1] in arrays
    spec = CacheSpec(arrays[KEYS[0]].shape[1] * codec.stride, flip=flip, **stored)
    check_codec(codec, spec)
    # MAR keeps the image's own name before the suffix
    named = scan._replace(paths=[path.removesuffix(SUFFIX) for path in scan.paths])
    plan, files = make_plan(named, codec, with_begun_shards(out, spec))
    plan['crop']['color'] = AS_STORED  # the official code does not turn pictures
    plan |= dict(encode_dtype='unknown', encode_batch_size=1, imported=f'{SUFFIX} with {" and ".join(KEYS[: 1 + flip])}')
    dataset = NpzMoments(source, scan.paths, plan)
    _check_scale(dataset, codec)
    if images is not None:
        _check_against_images(dataset, named.paths, images, codec, plan, num_checked)
    return plan, files


def _evenly(num: int, wanted: int) -> list[int]:
    wanted = min(num, wanted)
    return [i * num // wanted for i in range(wanted)]


def _moments(dataset: NpzMoments, indices: list[int]) -> Tensor:
    moments = stack_or_error([dataset[i] for i in indices])
    if isinstance(moments, ValueError):
        raise moments
    return moments


def _check_scale(dataset: NpzMoments, codec: LatentCodec) -> None:
    """Raise a ValueError if scaled latents are far from unit deviation: they were stored scaled, or belong to another VAE."""
    if codec.scale is None:  # it follows from this cache's own statistics
        return
    deviation = float(codec.mode(_moments(dataset, _evenly(len(dataset), _PROBED)).flatten(0, 1).to(codec.device)).std())
    if not _DEVIATION[0] <= deviation <= _DEVIATION[1]:
        raise ValueError(
            f"the latents of '{dataset.root}' have a standard deviation of {deviation:.3g} after the scaling of VAE "
            f"'{codec.name}', expected about 1: they are of another VAE, or were stored scaled already"
        )


def _check_against_images(
    dataset: NpzMoments, names: list[str], images: str, codec: LatentCodec, plan: dict[str, Any], num: int
) -> None:
    """Raise a ValueError if an image's latents are not those that the VAE makes of it."""
    indices = _evenly(len(dataset), num)
    crops = CroppedImages(images, names, plan['image_size'], plan['crop'], crops=1)
    pixels = stack_or_error([crops[i] for i in indices])
    if isinstance(pixels, ValueError):
        raise pixels
    stored = _moments(dataset, indices).chunk(2, dim=2)[0]
    flip = stored.shape[1] == 2
    encoded = encode_views(codec, pixels.to(codec.device), flip, encode_batch_size=1).cpu().chunk(2, dim=2)[0]
    errors = (stored - encoded).flatten(1).abs().amax(1) / encoded.std()
    worst = int(errors.argmax())
    if errors[worst] > TOLERANCE:
        raise ValueError(
            f"the latents of '{names[indices[worst]]}' are not what VAE '{codec.name}' makes of that image in '{images}': they "
            f'differ by {float(errors[worst]):.3g} standard deviations: name the VAE, the size and the images that were encoded'
        )
    MMLogger.get_current_instance().info(
        f'{len(indices)} images encoded again: latents differ by at most {float(errors[worst]):.2g} standard deviations'
    )
