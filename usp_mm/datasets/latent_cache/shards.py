"""One shard of a latent cache on disk."""

import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from usp_mm.fileio.atomic import write_json, write_whole
from usp_mm.vaes.base import LOGVAR_MAX, LOGVAR_MIN

from .manifest import load_json
from .manifest_fields import NOTE_FIELDS, TOKEN_NOTE_FIELDS, check_fields, num_shards, shard_name
from .storage import MomentStorage, TokenStorage


class Shard:
    """Shard `number` of the latents in `folder` that are written by `plan` (or a manifest)."""

    kind, note_fields = 'shard', NOTE_FIELDS

    def __init__(self, folder: Path, plan: dict[str, Any], number: int) -> None:
        self.path = folder / shard_name(number, self.kind)
        self.sidecar = self.path.with_suffix('.json')
        self.start = number * plan['shard_size']
        self.count = min(plan['shard_size'], plan['num_samples'] - self.start)
        self.storage: Any = self.make_storage(plan)
        self.header = _npy_header(self.storage.record, (self.count, len(plan['views'])))
        self.num_bytes = len(self.header) + self.count * len(plan['views']) * self.storage.record.itemsize

    def make_storage(self, plan: dict[str, Any]) -> MomentStorage | TokenStorage:
        """The format of its views on disk."""
        return MomentStorage(plan['dtype'], plan['store'], plan['channels'], plan['latent_size'])

    def open_writer(self, file: BinaryIO) -> 'ShardWriter':
        """Make the writer that appends views to its file."""
        return ShardWriter(file, self.storage)

    def is_whole(self) -> bool:
        """Whether the shard was finished and has its full size; its bytes are not read."""
        return self.sidecar.is_file() and self.path.is_file() and self.path.stat().st_size == self.num_bytes

    def summary(self) -> dict[str, Any]:
        """Content of the sidecar that was written when the shard was finished."""
        content = load_json(self.sidecar)
        check_fields(content, self.note_fields, f"'{self.sidecar}'")
        return content

    @contextmanager
    def writer(self) -> Iterator['ShardWriter']:
        """Fill the shard front to back; it and its sidecar appear when the block ends without an error."""
        self.sidecar.unlink(missing_ok=True)
        with write_whole(self.path) as file:
            writer = self.open_writer(file)
            writer.append(self.header)
            yield writer
            assert writer.count == self.count, f'{writer.count} samples written to a shard of {self.count}'
        write_json(self.sidecar, dict(file=self.path.name, count=self.count, bytes=self.num_bytes, **writer.summary()))


class TokenShard(Shard):
    """The teacher's tokens of the images of `Shard` number `number`."""

    kind, note_fields = 'teacher', TOKEN_NOTE_FIELDS

    def make_storage(self, plan: dict[str, Any]) -> TokenStorage:
        teacher = plan['teacher']
        return TokenStorage(teacher['stored'], teacher['grid'], teacher['dim'])

    def open_writer(self, file: BinaryIO) -> 'ShardWriter':
        return TokenWriter(file, self.storage)


def all_shards(folder: Path, plan: dict[str, Any]) -> list[Shard]:
    """Every shard of latents of a plan (or manifest)."""
    return [Shard(folder, plan, number) for number in range(num_shards(plan))]


def token_shards(folder: Path, plan: dict[str, Any]) -> list[Shard]:
    """Every shard of a teacher's tokens; none without a teacher."""
    return [TokenShard(folder, plan, number) for number in range(num_shards(plan))] if plan.get('teacher') else []


class ShardWriter:
    """Appends samples to an open shard and sums up what it writes."""

    def __init__(self, file: BinaryIO, storage: Any) -> None:
        self.file, self.storage, self.digest, self.count = file, storage, hashlib.sha256(), 0
        self.sums: list[np.ndarray] = []

    def write(self, moments: Tensor) -> None:
        """Append samples: float32[N, views, 2C, h, w], on the CPU."""
        self.count += len(moments)
        self.sums.append(_latent_sums(moments, with_variance='logvar' in self.storage.dtypes))
        self.append(self.storage.encode(moments.flatten(0, 1)).view(np.uint8))

    def append(self, content: bytes | np.ndarray) -> None:
        """Append bytes, or uint8[bytes]."""
        data = content if isinstance(content, bytes) else content.data
        self.file.write(data)
        self.digest.update(data)

    def summary(self) -> dict[str, Any]:
        """Checksum, and sums over all samples that do not depend on how they came in batches (they are exact)."""
        first, second = ([math.fsum(column) for column in part] for part in np.concatenate(self.sums).transpose(1, 2, 0))
        return dict(sha256=self.digest.hexdigest(), latent_sum=first, latent_square_sum=second)


class TokenWriter(ShardWriter):
    """Appends a teacher's tokens."""

    def write(self, tokens: Tensor) -> None:
        """Append samples: float32[N, views, L, E], on the CPU."""
        self.count += len(tokens)
        self.append(self.storage.encode(tokens.flatten(0, 1)).view(np.uint8))

    def summary(self) -> dict[str, Any]:
        return dict(sha256=self.digest.hexdigest())


class ShardReader:
    """Records of any samples and views of shards, which are mapped into memory on first use and never pickled.

    Args:
        shards: Shards of one kind, of latents or of tokens.
        plan: The plan or the manifest of the cache.
    """

    def __init__(self, shards: Sequence[Shard], plan: dict[str, Any]) -> None:
        self.paths, self.storage = [shard.path for shard in shards], shards[0].storage
        self.shard_size, self.num_views = plan['shard_size'], len(plan['views'])
        self.maps: dict[int, np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, maps={})

    def __call__(self, rows: np.ndarray, views: np.ndarray) -> Tensor:
        """int64[N] samples, int64[N] views -> their records, decoded by their storage."""
        tensor: Tensor = self.storage.decode(self._gather(rows, views))
        return tensor

    def _gather(self, rows: np.ndarray, views: np.ndarray) -> np.ndarray:
        shards, places = np.divmod(rows, self.shard_size)
        places = places * self.num_views + views
        touched = np.unique(shards).tolist()
        if len(touched) == 1:
            return self._map(touched[0])[places].view(self.storage.record)
        records = np.empty(len(rows), np.dtype((np.void, self.storage.record.itemsize)))
        for shard in touched:
            chosen = shards == shard
            records[chosen] = self._map(shard)[places[chosen]]
        return records.view(self.storage.record)

    def _map(self, shard: int) -> np.ndarray:
        """bytes[samples * views] of a shard: records as plain bytes, since NumPy copies structured ones field by field."""
        if shard not in self.maps:
            records = np.load(self.paths[shard], mmap_mode='r', allow_pickle=False)
            self.maps[shard] = np.asarray(records).reshape(-1).view(np.dtype((np.void, records.dtype.itemsize)))
        return self.maps[shard]


def latent_statistics(summaries: Iterable[dict[str, Any]], numbers_a_sample: int) -> tuple[list[float], list[float]]:
    """Per-channel mean and standard deviation of the latents from the sums of every shard.

    Args:
        summaries: Summaries of the shards, see `ShardWriter.summary`.
        numbers_a_sample: Latent numbers of a sample in each channel: views × h × w.
    """
    summaries = list(summaries)
    total = sum(summary['count'] for summary in summaries) * numbers_a_sample
    first = [math.fsum(column) / total for column in zip(*(summary['latent_sum'] for summary in summaries), strict=True)]
    second = [
        math.fsum(column) / total for column in zip(*(summary['latent_square_sum'] for summary in summaries), strict=True)
    ]
    return first, [math.sqrt(max(square - mean**2, 0.0)) for mean, square in zip(first, second, strict=True)]


def _latent_sums(moments: Tensor, with_variance: bool) -> np.ndarray:
    """Sums of E[z] and E[z²] over views and positions. float32[N, V, 2C, h, w] -> float64[N, 2, C]."""
    mean, logvar = moments.double().chunk(2, dim=2)
    square = mean**2 + logvar.clamp(LOGVAR_MIN, LOGVAR_MAX).exp() if with_variance else mean**2
    return np.stack([part.sum((1, 3, 4)).numpy() for part in (mean, square)], axis=1)


def _npy_header(record: np.dtype, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(record)
    np.lib.format.write_array_header_2_0(header, dict(descr=descr, fortran_order=False, shape=shape))
    return header.getvalue()
