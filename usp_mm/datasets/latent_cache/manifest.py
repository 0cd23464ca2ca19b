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

import json
from pathlib import Path
from typing import Any

FORMAT_VERSION = 1
MANIFEST, PLAN, SAMPLES, LABELS, LOCK = 'manifest.json', 'plan.json', 'samples.txt', 'labels.npy', '.lock'
WRITE_COMMAND = 'tools/cache_latents.py write'

#: Keys of a plan, hence of a manifest, with their types.
_PLAN_KEYS = dict(
    format_version=int, vae=str, vae_weight_hash=str, channels=int, stride=int, image_size=int, latent_size=int, crop=dict,
    encode_dtype=str, encode_batch_size=int, dtype=str, store=str, fields=dict, crops=int, flip=bool, views=list,
    num_samples=int, shard_size=int, samples_sha256=str, labels_sha256=str,
)  # fmt: skip
_MANIFEST_KEYS = dict(_PLAN_KEYS, shards=list, latent_mean=list, latent_std=list)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of a latent cache.

    Args:
        path: the cache's folder or its manifest.json.

    Returns:
        Among others `vae`, `vae_weight_hash`, `scale`, `image_size`, `dtype`, `num_samples`, `classes`, `shards` and
        `latent_mean`, `latent_std`: per-channel lists over the unscaled latents, all views included; with stored
        log-variances the deviation is that of posterior samples; `compiled` where the VAE was.
        With a teacher's tokens also `teacher` (name, dim, size, grid, dtype, weight_hash and stored, the dtype on disk) and
        `teacher_shards`.

    Raises:
        FileNotFoundError: no cache there, or one that is not finished.
        ValueError: not a manifest of this format.
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
    return load_json(path, _MANIFEST_KEYS)


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan of a cache that is being written, None if there is none."""
    path = folder / PLAN
    return load_json(path, _PLAN_KEYS) if path.is_file() else None


def load_json(path: Path, keys: dict[str, type]) -> dict[str, Any]:
    """A JSON object that has `keys` of the given types."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"'{path}' is no JSON file ({error}): delete it and run '{WRITE_COMMAND}' again") from error
    wrong = [key for key, kind in keys.items() if not isinstance(content, dict) or not isinstance(content.get(key), kind)]
    if wrong:
        raise ValueError(f"'{path}' is not of a latent cache: {', '.join(wrong)} missing or of another type")
    version = content.get('format_version', FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise ValueError(f"'{path}' has format version {version}, this package reads {FORMAT_VERSION}: write the cache anew")
    return content


def shard_counts(plan: dict[str, Any]) -> list[int]:
    """How many samples each shard holds."""
    num, size = plan['num_samples'], plan['shard_size']
    return [min(size, num - start) for start in range(0, num, size)]


def shard_name(number: int, kind: str = 'shard') -> str:
    """File name of a shard of latents, or of another kind."""
    return f'{kind}-{number:05d}.npy'
