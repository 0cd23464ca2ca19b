"""k-NN probe of a frozen model, with features that are stored in a file.

mmpretrain has no k-NN evaluation, only retrieval.

Shape legend: N samples, D width.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import MMLogger
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from usp_mm.fileio.atomic import write_whole
from usp_mm.functional.knn import knn_accuracy, nearest
from usp_mm.images import DECODING

from .data import ProbeData, check_same_classes, extract
from .features import FrozenModel, check_layers, clean_time


def feature_key(
    model: FrozenModel, data: ProbeData, layer: int, checkpoint_hash: str, model_cfg: dict[str, Any]
) -> dict[str, Any]:
    """Everything on which the features depend, as plain values."""
    noisy = model.objective is not None and model.t != clean_time(model.objective)
    return dict(
        checkpoint=checkpoint_hash,
        weights='orig' if model.weights == 'model' else model.weights,  # the older name, under which existing files are found
        layer=layer,
        pool=model.pool,
        t=model.t,
        noise=[model.seed, data.split] if noisy else None,
        model={name: model_cfg.get(name) for name in ('data_preprocessor', 'backbone', 'denoiser', 'objective')},
        vae=None if data.cached else model.preprocessor.codec.weight_hash,
        data=data.fingerprint(),
        pipeline=data.pipeline,
        **({} if data.cached else dict(decoding=DECODING)),
    )


def feature_file(folder: Path, key: dict[str, Any]) -> Path:
    """The file in which features with this key are stored."""
    digest = hashlib.sha256(_text(key).encode()).hexdigest()
    return folder / f'features-{key["checkpoint"][:12]}-{digest[:12]}.safetensors'


def kept_features(
    model: FrozenModel, data: ProbeData, layer: int, folder: Path, key: dict[str, Any], batch_size: int
) -> tuple[Tensor, Tensor]:
    """Features float32[N, D] and classes int64[N], read from the file of `key`, or computed and stored there.

    Raises:
        ValueError: The file is damaged.
    """
    path, logger = feature_file(folder, key), MMLogger.get_current_instance()
    if path.is_file():
        logger.info(f"features of '{data.path}' from '{path}'")
        return _read(path, key)
    (features,), labels = extract(model, data, [layer], batch_size, f'features of {data.path.name}')
    folder.mkdir(parents=True, exist_ok=True)
    with write_whole(path) as file:
        file.write(save(dict(features=features, labels=labels), metadata=dict(key=_text(key))))
    logger.info(f"features of '{data.path}' kept in '{path}'")
    return features, labels


def _read(path: Path, key: dict[str, Any]) -> tuple[Tensor, Tensor]:
    try:
        with safe_open(path, framework='pt') as file:
            if (file.metadata() or {}).get('key') != _text(key):
                raise ValueError(f"'{path}' holds features of another model or of other data: delete it")
            return file.get_tensor('features'), file.get_tensor('labels')
    except SafetensorError as error:
        raise ValueError(f"'{path}' is broken ({error}): delete it, it will be written anew") from error


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, default=str)


def check_knn(model: FrozenModel, train: ProbeData, val: ProbeData, layer: int, ks: Sequence[int], temperature: float) -> None:
    """Raise ValueError if the probe cannot run, before any long work."""
    check_layers([layer], model.depth)
    check_same_classes(train, val)
    for k in ks:
        if not 1 <= k <= len(train):
            raise ValueError(f"k={k} neighbours must be from 1 to {len(train)}, the samples of '{train.path}'")
    if temperature <= 0:
        raise ValueError(f'temperature={temperature} must be positive')


def knn_probe(
    train: tuple[Tensor, Tensor],
    val: tuple[Tensor, Tensor],
    num_classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Accuracy of a weighted vote of the k nearest training samples, for each k.

    Args:
        train, val: Features float32[N, D] and classes int64[N] of each split.
        num_classes: Number of classes.
        ks: Numbers of neighbours.
        temperature: Temperature of the votes' weights.
        device: Device of the search for neighbours.

    Returns:
        A dict for each k with k, top1 and top5 (None with five classes or fewer), in per cent.
    """
    similarity, rows = nearest(val[0], train[0], max(ks), device=device)
    neighbours, labels = train[1].to(rows.device)[rows], val[1].to(rows.device)
    top = (1, 5) if num_classes > 5 else (1,)
    found = knn_accuracy(similarity, neighbours, labels, num_classes, ks, temperature=temperature, top=top)
    return [dict(k=k, top1=found[k][1], top5=found[k].get(5)) for k in ks]
