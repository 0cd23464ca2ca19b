"""What a `write` will do, decided and checked before any image is encoded, and the same on every resume."""

import hashlib
import io
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.logging import MMLogger
from torch import Tensor

from usp_mm.fileio.atomic import check_free_space, write_json, write_whole
from usp_mm.images import DECODING
from usp_mm.renaming.arguments import older_arguments
from usp_mm.vaes import LatentCodec
from usp_mm.vaes.record import as_numbers

from ..folder import FolderScan, scan_image_folder
from .crops import AS_STORED
from .manifest import FORMAT_VERSION, LABELS, MANIFEST, PLAN, SAMPLES, WRITE_COMMAND, read_manifest, read_plan
from .shards import all_shards, latent_statistics, token_shards
from .storage import MomentStorage


@older_arguments(image_size='img_size')
@dataclass(frozen=True)
class CacheSpec:
    """What to cache. The first `write` fixes all of it: a resume must ask for the same.

    Args:
        img_size: Side of the crops, pixels.
        store: 'moments' (mean and log-variance) or 'mean'.
        dtype: A key of `usp_mm.config.options.STORAGES`.
        encode_dtype: 'float32', 'tf32', 'bfloat16' or 'float16', the arithmetic of the VAE.
        encode_batch_size: Images in a call of the VAE. Smaller batches are filled up, because the rounding of a convolution
            depends on the batch size.
        flip: Whether to store the encoding of the mirrored image too.
        random_crops: Number of random resized crops of each image; 0 stands for one centre crop.
        crop_scale: Area of a random crop, as a fraction of the image's.
        seed: Seed of the random crops.
        shard_size: Samples in a shard; by default as in the cache that was begun, else `samples_a_shard` of their number.
    """

    img_size: int
    store: str = 'moments'
    dtype: str = 'float16'
    encode_dtype: str = 'float32'
    encode_batch_size: int = 16
    flip: bool = True
    random_crops: int = 0
    crop_scale: tuple[float, float] = (0.2, 1.0)
    seed: int = 0
    shard_size: int | None = None

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        for name, valid, expected in (
            ('img_size', self.img_size > 0, 'a positive number of pixels'),
            ('encode_batch_size', self.encode_batch_size > 0, 'a positive number of images'),
            ('random_crops', self.random_crops >= 0, '0 or a number of crops'),
            ('crop_scale', 0 < low <= high <= 1, '0 < low <= high <= 1'),
            ('seed', self.seed >= 0, 'a non-negative integer'),
            ('shard_size', self.shard_size is None or self.shard_size > 0, 'a positive number of samples'),
        ):
            if not valid:
                raise ValueError(f'{name}={getattr(self, name)} must be {expected}')

    def crop(self) -> dict[str, Any]:
        """How an image becomes crops."""
        common = dict(resampling='Pillow bicubic', color=DECODING)
        if self.random_crops:
            return dict(mode='random', scale=list(self.crop_scale), ratio=[3 / 4, 4 / 3], seed=self.seed, **common)
        return dict(mode='center', resize='short side: box filter by halves, then bicubic', **common)

    def views(self) -> list[str]:
        """Names of the views, in storage order."""
        crops = [f'crop {k}' for k in range(max(self.random_crops, 1))]
        return [name + flip for name in crops for flip in (['', ', flipped'] if self.flip else [''])]


#: Samples a shard of a large set, which has that many shards or more.
_LARGE_SHARD, _SHARDS = 16384, 32


def samples_a_shard(num_samples: int) -> int:
    """The default `shard_size`: about 32 shards for the processes to share, of at most 16,384 samples.

    It depends only on the number of samples, as the bytes of a cache must not depend on the number of processes. Shards of up
    to 1,024 samples are whole calls of 16 images, an encoder's usual number on a CPU, others of 64, that on a GPU.
    """
    call = 16 if num_samples <= 1024 else 64
    return min(_LARGE_SHARD, call * math.ceil(num_samples / (_SHARDS * call)))


def with_begun_shards(out: Path, spec: CacheSpec) -> CacheSpec:
    """The spec, with the `shard_size` of the cache that was begun if the spec has none."""
    begun = read_plan(out) if spec.shard_size is None else None
    return spec if begun is None else replace(spec, shard_size=begun['shard_size'])


def images_a_call(out: Path, img_size: int, device: torch.device | str) -> int:
    """The default `encode_batch_size`: that of the cache if it was begun, since its bits depend on it.

    Else 64 crops of up to 256 pixels on a GPU, and of larger ones as many as take the same memory: in float32 the activations
    of Stable Diffusion's VAE are then some tensors of 2 GiB. On a CPU 16.
    """
    begun = read_plan(out)
    usual = 16
    if torch.device(device).type != 'cpu':
        usual = max(1, min(64, 64 * 256**2 // max(1, img_size) ** 2))
    if begun is None or begun['encode_batch_size'] == usual:
        return usual
    found: int = begun['encode_batch_size']
    MMLogger.get_current_instance().info(f"'{out}' was begun with {found} images a call of the encoder, and goes on with them")
    return found


class TokenEncoder(Protocol):
    """What a cache needs of a teacher."""

    def to(self, device: torch.device | str) -> 'TokenEncoder':
        """Move the encoder to a device."""

    def tokens(self, images: Tensor) -> Tensor:
        """[N, 3, H, W], RGB in [0, 255] -> float32[N, L, E]."""

    def facts(self) -> dict[str, Any]:
        """name, dim, size, grid, dtype, weight_hash."""


@dataclass(frozen=True)
class Found:
    """State of a cache's folder: whether it was begun, is complete, and has latents that can be read already."""

    begun: bool
    complete: bool
    readable: bool
    missing_bytes: int
    progress: str


def prepare(
    data_root: str,
    out: Path,
    codec: LatentCodec,
    spec: CacheSpec,
    teacher: TokenEncoder | None = None,
    lock: Callable[[], None] = lambda: None,
    with_label: bool | None = None,
) -> tuple[dict[str, Any], bool]:
    """Check everything that can be checked beforehand, and write plan.json, samples.txt and labels.npy.

    Args:
        lock: Function that is called before anything is written. The folder is looked at again after it.
        with_label: How the folder is read, see `scan_image_folder`.

    Returns:
        The plan, and whether the cache is complete already.

    Raises:
        ValueError: An argument is invalid, or `out` was begun with other parameters.
        FileNotFoundError: No images.
        OSError: Not enough disk space.
    """
    check_codec(codec, spec)
    if not os.path.relpath(out.resolve(), Path(data_root).resolve()).startswith('..'):
        raise ValueError(f"the cache folder '{out}' lies in the image folder '{data_root}': choose a place outside")
    plan, files = make_plan(scan_image_folder(data_root, with_label=with_label), codec, with_begun_shards(out, spec))
    _decode_as_begun(out, plan)
    if teacher is not None:
        plan['teacher'] = dict(teacher.facts(), stored=spec.dtype.removesuffix('-full'))
    return settle(out, plan, files, lock)


def settle(
    out: Path, plan: dict[str, Any], files: dict[str, bytes], lock: Callable[[], None] = lambda: None
) -> tuple[dict[str, Any], bool]:
    """Begin the cache of a plan, or go on with it.

    Args:
        files: samples.txt and labels.npy.
        lock: As in `prepare`; so are the returned values and the errors.
    """
    found = _look(out, plan)
    if not found.complete:
        check_free_space(out, found.missing_bytes + sum(map(len, files.values())))
        out.mkdir(parents=True, exist_ok=True)
        lock()
        found = _look(out, plan)
    if found.complete:
        return plan, True
    begin(out, plan, files, keep_manifest=found.readable)
    if found.begun:
        MMLogger.get_current_instance().info(f"continuing '{out}': {found.progress}")
    return plan, False


def _decode_as_begun(out: Path, plan: dict[str, Any]) -> None:
    """Go on with a cache whose images were taken as stored: the two ways differ in few images, which are then refused."""
    begun = read_plan(out)
    if begun is not None and begun['crop'].get('color') == AS_STORED:
        plan['crop']['color'] = AS_STORED
        MMLogger.get_current_instance().info(
            f"'{out}' was begun when EXIF orientation was ignored and 16 bits were clipped: images that need neither are "
            'encoded as before, others are refused'
        )


def _look(out: Path, plan: dict[str, Any]) -> Found:
    """Look at the folder; raises a ValueError if it was begun with other parameters."""
    begun = read_plan(out)
    if begun is not None:
        _check_same(begun if _has_tokens(out, begun) else {**begun, 'teacher': plan.get('teacher')}, plan, out)
    latents, tokens = all_shards(out, plan), token_shards(out, plan)
    left = [shard for shard in latents + tokens if not shard.is_whole()]
    promised = read_manifest(out) if (out / MANIFEST).is_file() else None
    total, teacher = len(latents + tokens), plan.get('teacher')
    return Found(
        begun=begun is not None,
        complete=not left and promised is not None and promised.get('teacher') == teacher,
        readable=promised is not None and promised.get('teacher') in (None, teacher) and not set(latents) & set(left),
        missing_bytes=sum(shard.num_bytes for shard in left),
        progress=f'{total - len(left)} of {total} shards are finished',
    )


def check_codec(codec: LatentCodec, spec: CacheSpec) -> None:
    """Raise a ValueError unless the VAE has latents and its stride divides the image size."""
    if codec.moment_channels != 2 * codec.channels:
        raise ValueError(f"VAE '{codec.name}' has no latents to cache: train from the images")
    if spec.img_size % codec.stride:
        raise ValueError(f"image size {spec.img_size} is not a multiple of the stride {codec.stride} of VAE '{codec.name}'")


def make_plan(scan: FolderScan, codec: LatentCodec, spec: CacheSpec) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The plan, and what goes into samples.txt and labels.npy."""
    broken = [path for path in scan.paths if '\n' in path or '\r' in path]
    if broken:
        raise ValueError(f'image path {broken[0]!r} has a line break: rename it')
    latent_size = spec.img_size // codec.stride
    labels = io.BytesIO()
    np.save(labels, np.array(scan.labels if scan.labels is not None else [-1] * len(scan.paths), dtype=np.int64))
    files = {SAMPLES: ('\n'.join(scan.paths) + '\n').encode(), LABELS: labels.getvalue()}
    plan = dict(
        format_version=FORMAT_VERSION,
        vae=codec.name,
        vae_weight_hash=codec.weight_hash,
        scale=as_numbers(codec.scale),
        shift=as_numbers(codec.shift),
        channels=codec.channels,
        stride=codec.stride,
        image_size=spec.img_size,
        latent_size=latent_size,
        crop=spec.crop(),
        encode_dtype=spec.encode_dtype,
        encode_batch_size=spec.encode_batch_size,
        dtype=spec.dtype,
        store=spec.store,
        fields=MomentStorage(spec.dtype, spec.store, codec.channels, latent_size).fields,
        crops=max(spec.random_crops, 1),
        flip=spec.flip,
        views=spec.views(),
        num_samples=len(scan.paths),
        shard_size=spec.shard_size or samples_a_shard(len(scan.paths)),
        samples_sha256=hashlib.sha256(files[SAMPLES]).hexdigest(),
        labels_sha256=hashlib.sha256(files[LABELS]).hexdigest(),
        classes=None if scan.classes is None else list(scan.classes),
    )
    if codec.compiled:  # which rounds otherwise
        plan['compiled'] = True
    return plan, files


def begin(out: Path, plan: dict[str, Any], files: dict[str, bytes], keep_manifest: bool = False) -> None:
    """Write the plan, and delete the manifest until every shard is whole. It stays if only tokens are added."""
    if not keep_manifest:
        (out / MANIFEST).unlink(missing_ok=True)
    for name, content in files.items():
        with write_whole(out / name) as file:
            file.write(content)
    write_json(out / PLAN, plan)


def finish(out: Path, plan: dict[str, Any]) -> None:
    """Write the manifest. Every shard has to be whole.

    Raises:
        OSError: A shard is missing or not whole.
    """
    shards, tokens = all_shards(out, plan), token_shards(out, plan)
    missing = [shard.path.name for shard in shards + tokens if not shard.is_whole()]
    missing += [name for name in (SAMPLES, LABELS) if not (out / name).is_file()]
    if missing:
        raise OSError(f"{', '.join(missing)} of '{out}' vanished while others were written: run '{WRITE_COMMAND}' again")
    summaries = [shard.summary() for shard in shards]
    mean, std = latent_statistics(summaries, len(plan['views']) * plan['latent_size'] ** 2)
    manifest = dict(plan, latent_mean=mean, latent_std=std, shards=_entries(summaries))
    if tokens:
        manifest['teacher_shards'] = _entries([shard.summary() for shard in tokens])
    write_json(out / MANIFEST, manifest)


def _entries(summaries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: summary[key] for key in ('file', 'count', 'bytes', 'sha256')} for summary in summaries]


def _has_tokens(out: Path, plan: dict[str, Any]) -> bool:
    """Whether a shard of the teacher's tokens is finished: until then another teacher can be named."""
    return any(shard.is_whole() for shard in token_shards(out, plan))


def _check_same(begun: dict[str, Any], plan: dict[str, Any], out: Path) -> None:
    there, now = _parameters(begun), _parameters(plan)
    differing = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    if differing:
        values = '; '.join(f'{key}: {_value_text(there.get(key))} there, {_value_text(now.get(key))} now' for key in differing)
        fix = 'repeat them, or choose another folder, or delete this one'
        if all(key.startswith('teacher') for key in differing):
            fix = 'repeat it, or choose another folder, or delete teacher-*.npy and teacher-*.json there: the latents stay'
        raise ValueError(f"'{out}' was begun by '{WRITE_COMMAND}' with other parameters ({values}): {fix}")


def _parameters(plan: dict[str, Any]) -> dict[str, Any]:
    """The parameters that a user chose, without those that follow from them."""
    derived, nested = ('latent_size', 'views', 'fields', 'labels_sha256'), ('crop', 'teacher')
    parts = {f'{name} {key}': value for name in nested for key, value in (plan.get(name) or {}).items()}
    return {key: plan[key] for key in plan if key not in (*derived, *nested)} | parts


def _value_text(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f'{text[:117]}...'
