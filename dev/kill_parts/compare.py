"""What a run leaves, in a form that can be compared."""

import hashlib
import json
import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import torch

from usp_mm.fileio.weights import read_checkpoint

from .scenarios import Scenario


class Deviation(NamedTuple):
    """How a run that was killed and started again differs from one that was left alone."""

    kind: str
    told: str


#: Kinds of deviations, each a column of the table.
KINDS = ('not resumable', 'differing', 'stray')


def content(scenario: Scenario, folder: Path) -> dict[str, str]:
    """Each file, folder and logged validation of a run -> what has to be equal: a digest and the mode, or the scores."""
    found = scores(folder) if scenario.logs else {}
    for path in sorted(folder.rglob('*')):
        name = str(path.relative_to(folder))
        if not (scenario.logs and re.match(scenario.logs, name)) or path.suffix == '.tmp':
            found[name] = f'{_digest(scenario, path)} {path.stat().st_mode & 0o777:o}'
    return found


def scores(folder: Path) -> dict[str, str]:
    """Each validation in the logs of a run's starts -> its scores, all of them where two starts logged different ones.

    One that a single start logged twice is named too.
    """
    told: dict[int, set[str]] = {}
    found = {}
    for log in sorted(folder.glob('*/vis_data/scalars.json')):
        records = [record for line in log.read_text().splitlines() if 'lr' not in (record := json.loads(line))]
        for step, times in Counter(record['step'] for record in records).items():
            if times > 1:
                found[f'scores at {step}, {times} times in one log'] = ''
        for record in records:
            values = {key: value for key, value in record.items() if key not in ('step', 'time', 'data_time')}
            told.setdefault(record['step'], set()).add(json.dumps(values, sort_keys=True))
    return found | {f'scores at {step}': ' or '.join(sorted(texts)) for step, texts in told.items()}


def differences(expected: dict[str, str], found: dict[str, str]) -> list[Deviation]:
    absent = [Deviation('differing', f'{name} is missing') for name in expected.keys() - found.keys()]
    stray = [Deviation('stray', name) for name in found.keys() - expected.keys()]
    other = [name for name in expected.keys() & found.keys() if expected[name] != found[name]]
    return sorted([*absent, *stray, *(Deviation('differing', name) for name in other)])


def _digest(scenario: Scenario, path: Path) -> str:
    if path.is_dir():
        return 'folder'
    if any(fnmatch(path.name, pattern) for pattern in scenario.weights):
        return tensor_digest(read_checkpoint(path))
    if any(fnmatch(path.name, pattern) for pattern in scenario.volatile):
        return 'file'
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def tensor_digest(checkpoint: dict[str, Any]) -> str:
    """Of weights, moments, schedules and position of a checkpoint; logs and clock times aside."""
    digest = hashlib.sha256()

    def add(node: Any, where: str) -> None:
        if isinstance(node, torch.Tensor):
            digest.update(f'{where} {node.dtype} {tuple(node.shape)}'.encode())
            digest.update(node.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(node, dict):
            for key in sorted(node, key=str):
                add(node[key], f'{where}.{key}')
        elif isinstance(node, list | tuple):
            for i, value in enumerate(node):
                add(value, f'{where}.{i}')
        else:
            digest.update(f'{where} {node!r}'.encode())

    add({key: value for key, value in checkpoint.items() if key not in ('meta', 'message_hub')}, '')
    meta = checkpoint.get('meta')
    if isinstance(meta, dict):
        add({key: meta.get(key) for key in ('epoch', 'iter', 'seed')}, 'meta')
    return digest.hexdigest()[:12]
