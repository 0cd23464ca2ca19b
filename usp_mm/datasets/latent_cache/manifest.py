"""The files of a latent cache and what its manifest promises.

manifest.json     everything needed to read the cache; written last, when all shards are whole, and anew when a teacher's
                  tokens were added, until when the latents are read as before
plan.json         the parameters that the shards are written with
samples.txt       relative path of each image, one a line
labels.npy        int64[N], class numbers (-1 in a folder without classes)
shard-00000.npy   record[n, views], see `MomentStorage`
shard-00000.json  its count, bytes, SHA-256 and sums of the latents
teacher-00000.npy, .json  of a cache with a teacher's tokens: record[n, views], see `TokenStorage`, of the same images
"""

from pathlib import Path
from typing import Any

from usp_mm.fileio.atomic import read_json

from .manifest_fields import check_manifest, check_plan

FORMAT_VERSION = 1
MANIFEST, PLAN, SAMPLES, LABELS, LOCK = 'manifest.json', 'plan.json', 'samples.txt', 'labels.npy', '.lock'
WRITE_COMMAND = 'usp cache write'


def read_manifest(path: str | Path) -> dict[str, Any]:
    """Read the manifest of a latent cache.

    Args:
        path: The cache's folder or its manifest.json.

    Returns:
        Among others `vae`, `vae_weight_hash`, `scale`, `image_size`, `dtype`, `num_samples`, `classes`, `shards` and
        `latent_mean`, `latent_std`: per-channel lists over the unscaled latents, all views included; with stored
        log-variances the deviation is that of posterior samples; `compiled` where the VAE was.
        With a teacher's tokens also `teacher` (name, dim, size, grid, dtype, weight_hash and stored, the dtype on disk) and
        `teacher_shards`.

    Raises:
        FileNotFoundError: There is no cache, or it is not finished.
        ValueError: It is not a manifest of this format, or a field has an invalid value.
    """
    path = Path(path)
    folder = path.parent if path.name == MANIFEST else path
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / PLAN).is_file():
            raise FileNotFoundError(
                f"latent cache '{folder}' is incomplete: run the same '{WRITE_COMMAND}' command again to finish it"
            )
        raise FileNotFoundError(f"no latent cache in '{folder}': write one with '{WRITE_COMMAND}'")
    content = load_json(path)
    check_manifest(content, f"'{path}'")
    return content


def read_plan(folder: Path) -> dict[str, Any] | None:
    """Read the plan of a cache that is being written; None if there is none."""
    path = folder / PLAN
    if not path.is_file():
        return None
    content = load_json(path)
    check_plan(content, f"'{path}'")
    return content


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of this format's version.

    Raises:
        ValueError: The file is none.
    """
    content = read_json(path, f"delete it and run '{WRITE_COMMAND}' again") or {}
    version = content.get('format_version', FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(f"'{path}' has format version {version!r}, this package reads {FORMAT_VERSION}: write the cache anew")
    return content
