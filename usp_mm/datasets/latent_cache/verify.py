"""Whether a finished cache is still what was written: all of it on demand, and a part of it whenever a run begins."""

import random
from pathlib import Path
from typing import Any

from mmengine.dist import get_dist_info
from tqdm import tqdm

from usp_mm.fileio.atomic import sha256

from .manifest import LABELS, MANIFEST, SAMPLES, WRITE_COMMAND, read_manifest
from .shards import all_shards, token_shards

#: How much of a cache a run compares with its checksums, see `verify_at_start`.
VERIFY = ('full', 'fast', 'off')
#: Bytes of shards that 'fast' reads; a smaller cache is read whole.
FAST_BYTES = 1 << 30
#: (path, size, time of change, SHA-256) of the files that this process found intact.
_INTACT: set[tuple[str, int, int, str]] = set()


def verify_cache(folder: str | Path, delete_bad: bool = False) -> dict[str, str]:
    """Compare every file with the checksum in the manifest.

    Args:
        folder: Folder of the cache.
        delete_bad: Whether to delete bad files and the manifest, so that `write` redoes them. Of a link, the link
            itself is deleted and not its target.

    Returns:
        Name of each bad file -> what is wrong with it.

    Raises:
        FileNotFoundError: No cache, or an incomplete one.
        ValueError: The manifest is wrong, see `read_manifest`; nothing is deleted then.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    bad = {}
    for name, digest in tqdm(_digests(manifest).items(), unit='file', desc='verifying'):
        if problem := _problem(folder / name, digest):
            bad[name] = problem
    for entry, shard in zip(_entries(manifest), all_shards(folder, manifest) + token_shards(folder, manifest), strict=True):
        if entry['bytes'] != shard.num_bytes and shard.path.name not in bad:
            bad[shard.path.name] = f'the manifest says {entry["bytes"]:,} bytes, its shape makes {shard.num_bytes:,}'
    if bad and delete_bad:
        for name in [MANIFEST, *bad]:
            if not (folder / name).is_dir():
                (folder / name).unlink(missing_ok=True)
    return bad


def verify_at_start(folder: Path, manifest: dict[str, Any], verify: str, with_tokens: bool) -> None:
    """Compare files with their checksums before a run reads them.

    'full' reads all shards, of which each process of a group takes its share; 'fast' reads at most `FAST_BYTES` of shards,
    drawn anew by each process and run. Both read the labels and the list of samples. A file is read once by a process. Costs
    0.7 s per GB on one core.

    Args:
        folder: Folder of the cache.
        manifest: Content of its `manifest.json`.
        verify: One of `VERIFY`.
        with_tokens: Whether the run reads a teacher's tokens too.

    Raises:
        ValueError: A file differs, or `verify` is none of `VERIFY`.
    """
    if verify not in VERIFY:
        raise ValueError(f'verify={verify!r} must be one of {", ".join(VERIFY)}')
    if verify == 'off':
        return
    rank, world_size = get_dist_info()
    entries = [entry for entry in _entries(manifest) if with_tokens or entry in manifest['shards']]
    chosen = entries[rank::world_size] if verify == 'full' else _draw(entries)
    names = [LABELS, SAMPLES, *(entry['file'] for entry in chosen)]
    digests = _digests(manifest)
    for name in tqdm(names, unit='file', desc=f'verifying {folder.name}', leave=False, delay=2, disable=rank > 0):
        if problem := _known_problem(folder / name, digests[name]):
            raise ValueError(
                f"latent cache '{folder}': {name} is damaged ({problem}): run 'usp cache verify --delete-bad' on "
                f"it and the same '{WRITE_COMMAND}' command again"
            )


def _draw(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Draw entries that have at most `FAST_BYTES` together, but at least one."""
    left = FAST_BYTES
    chosen: list[dict[str, Any]] = []
    for entry in random.SystemRandom().sample(entries, len(entries)):  # disturbs no seed
        left -= entry['bytes']
        if chosen and left < 0:
            break
        chosen.append(entry)
    return chosen


def _entries(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return [*manifest['shards'], *manifest.get('teacher_shards', [])]


def _digests(manifest: dict[str, Any]) -> dict[str, str]:
    """Name of every file -> its SHA-256 in the manifest."""
    listed = {SAMPLES: manifest['samples_sha256'], LABELS: manifest['labels_sha256']}
    return listed | {entry['file']: entry['sha256'] for entry in _entries(manifest)}


def _known_problem(path: Path, digest: str) -> str | None:
    """Call `_problem` for a file that this process has not read yet."""
    if not path.is_file():
        return 'missing'
    found = path.stat()
    key = (str(path.resolve()), found.st_size, found.st_mtime_ns, digest)
    if key in _INTACT:
        return None
    problem = _problem(path, digest)
    if problem is None:
        _INTACT.add(key)
    return problem


def _problem(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return 'missing'
    found = sha256(path)
    return None if found == digest else f'SHA-256 is {found}, the manifest says {digest}'


def describe_cache(folder: str | Path) -> dict[str, Any]:
    """The manifest without its long lists, and the size of the cache on disk."""
    manifest = read_manifest(folder)
    total, tokens = (sum(shard['bytes'] for shard in manifest.get(key, [])) for key in ('shards', 'teacher_shards'))
    summary = {key: value for key, value in manifest.items() if key not in ('shards', 'teacher_shards', 'classes')}
    return dict(
        summary,
        classes=len(manifest.get('classes') or []),
        shards=len(manifest['shards']),
        total_bytes=total,
        bytes_per_image=total / manifest['num_samples'],
        **(dict(teacher_bytes=tokens) if tokens else {}),
    )
