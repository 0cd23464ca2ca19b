"""The classes and the image paths of a cache's samples, checked as they are read."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from .manifest import LABELS, SAMPLES

#: Paths that lead out of a folder.
_OUTSIDE = re.compile(r'^/|(?:^|/)\.\.(?:/|$)', re.MULTILINE)


def read_labels(folder: Path, manifest: dict[str, Any]) -> np.ndarray:
    """int64[N], the class of every sample; -1 in a cache without classes.

    Raises:
        ValueError: The file holds something else, or a class that the manifest has no name for.
    """
    path, num, classes = folder / LABELS, manifest['num_samples'], manifest.get('classes')
    try:
        labels = np.load(path, mmap_mode='r', allow_pickle=False)  # a header may promise more than memory holds
    except (ValueError, EOFError) as error:
        raise ValueError(f"'{path}' is broken ({_line(error)}): copy it again, or write the cache anew") from error
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int64 or labels.shape != (num,):
        found = f'{labels.dtype}{list(labels.shape)}' if isinstance(labels, np.ndarray) else 'an archive'
        raise ValueError(f"'{path}' holds {found}, expected int64[{num}]: copy it again, or write the cache anew")
    low, high = int(labels.min()), int(labels.max())
    if classes is not None and not 0 <= low <= high < len(classes):
        raise ValueError(
            f"'{path}' holds classes from {low} to {high}, the manifest has {len(classes)} names: write the cache anew"
        )
    return np.array(labels)


def read_sample_paths(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Path of every image that was cached, relative to the folder of images.

    Raises:
        ValueError: The file has another number of lines, or a path leads out of the folder of images.
    """
    path = folder / SAMPLES
    try:
        text = path.read_text(encoding='utf-8')
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is broken ({error}): copy it again, or write the cache anew") from error
    paths = text.split('\n')[:-1]
    if len(paths) != manifest['num_samples']:
        raise ValueError(f"'{path}' has {len(paths)} lines, expected {manifest['num_samples']}: write the cache anew")
    if match := _OUTSIDE.search(text):
        number = text.count('\n', 0, match.start())
        raise ValueError(f"'{path}' names {paths[number]!a}, which is not in the folder of images: write the cache anew")
    return paths


def _line(error: Exception) -> str:
    return ' '.join(str(error).split()) or type(error).__name__
