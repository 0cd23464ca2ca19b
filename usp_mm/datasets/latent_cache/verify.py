"""Whether a finished cache is still what was written."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from usp_mm.files import sha256

from .manifest import LABELS, MANIFEST, SAMPLES, read_manifest


def verify_cache(folder: str | Path, delete_bad: bool = False) -> dict[str, str]:
    """Compare every file with the checksum in the manifest.

    Args:
        folder: of the cache.
        delete_bad: whether to delete bad files and the manifest, so that `write` redoes them.

    Returns:
        Name of each bad file -> what is wrong with it.

    Raises:
        FileNotFoundError: no cache, or an incomplete one.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    expected = {SAMPLES: manifest['samples_sha256'], LABELS: manifest['labels_sha256']}
    expected |= {shard['file']: shard['sha256'] for shard in manifest['shards'] + manifest.get('teacher_shards', [])}
    bad = {}
    for name, digest in tqdm(expected.items(), unit='file', desc='verifying'):
        if problem := _problem(folder / name, digest):
            bad[name] = problem
    if bad and delete_bad:
        for name in [MANIFEST, *bad]:
            (folder / name).unlink(missing_ok=True)
    return bad


def _problem(path: Path, digest: str) -> str | None:
    if not path.is_file():
        return 'missing'
    found = sha256(path)
    return None if found == digest else f'SHA-256 is {found}, the manifest says {digest}'


def describe_cache(folder: str | Path) -> dict[str, Any]:
    """The manifest without its long lists, and what the cache takes on disk."""
    manifest = read_manifest(folder)
    total, tokens = (sum(shard['bytes'] for shard in manifest.get(key, [])) for key in ('shards', 'teacher_shards'))
    summary = {key: value for key, value in manifest.items() if key not in ('shards', 'teacher_shards', 'classes')}
    return dict(
        summary,
        classes=len(manifest['classes'] or []),
        shards=len(manifest['shards']),
        total_bytes=total,
        bytes_per_image=total / manifest['num_samples'],
        **(dict(teacher_bytes=tokens) if tokens else {}),
    )
