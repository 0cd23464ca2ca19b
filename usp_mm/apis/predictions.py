"""A classifier's predictions for images as values and as a picture, and its features."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from usp_mm.datasets.class_names import class_name
from usp_mm.fileio.atomic import write_whole
from usp_mm.images import load_image

from .inference import FileClassifier, FileFeatureExtractor


def classify_images(infer: FileClassifier, paths: Sequence[Path], top: int = 5, batch_size: int = 32) -> list[dict]:
    """Predict the classes of each file.

    Returns:
        For each file dict(path, top=[{label, class (None without names), score}, …]), at most `top` classes, best first.
    """
    samples = _run(infer, paths, batch_size, 'classifying')
    found = []
    for path, one in zip(paths, infer.postprocess(samples, None), strict=True):
        labels = np.argsort(-one['pred_scores'], kind='stable')[:top]
        best = [_entry(infer.classes, int(label), float(one['pred_scores'][label])) for label in labels]
        found.append(dict(path=str(path), top=best))
    return found


def embed_images(infer: FileFeatureExtractor, paths: Sequence[Path], batch_size: int = 32) -> np.ndarray:
    """Features float32[N, D] of the files: the backbone's last output.

    Raises:
        ValueError: The backbone's output is not a vector per image.
    """
    features = [one[-1].float().cpu().numpy() for one in _run(infer, paths, batch_size, 'embedding', stage='backbone')]
    if features[0].ndim != 1:
        raise ValueError(
            f"the backbone's output has shape {features[0].shape}, an embedding needs a vector: "
            '--cfg-options model.backbone.out_type=cls_token'
        )
    return np.stack(features)


def draw_predictions(path: Path, predictions: Sequence[dict]) -> None:
    """Write a PNG with one row per result of `classify_images`: the image, and bars of its best classes."""
    figure = Figure(figsize=(8, 2 * len(predictions)), layout='constrained')
    rows = figure.subplots(len(predictions), 2, squeeze=False, width_ratios=(1, 2))
    for (left, right), one in zip(rows, predictions, strict=True):
        left.imshow(load_image(one['path']))
        left.set_axis_off()
        left.set_title(Path(one['path']).name, fontsize='small')
        right.barh(range(len(one['top'])), [best['score'] for best in one['top']])
        right.set_yticks(range(len(one['top'])), [class_text(best) for best in one['top']])
        right.set(xlim=(0, 1), ylabel='class')
        right.invert_yaxis()
    rows[-1][1].set_xlabel('score')
    content = io.BytesIO()
    figure.savefig(content, format='png')
    with write_whole(path) as file:
        file.write(content.getvalue())


def class_text(best: dict) -> str:
    """Name of a class, or its number if it has no name."""
    return str(best['label']) if best['class'] is None else best['class']


def _entry(classes: Sequence[str] | None, label: int, score: float) -> dict:
    return {'label': label, 'class': class_name(classes, label), 'score': score}


def _run(
    infer: FileClassifier | FileFeatureExtractor, paths: Sequence[Path], batch_size: int, doing: str, **kwargs: str
) -> list:
    results = []
    with tqdm(total=len(paths), desc=doing, unit='img', leave=False) as progress:
        for batch in infer.preprocess(paths, batch_size):
            results += infer.forward(batch, **kwargs)
            progress.update(len(batch['inputs']))
    return results
