"""Golden numbers of the metrics: FID from ADM's evaluator, the others by their definitions in numpy."""

from typing import Any

import numpy as np
from recipe import Recorder

NUM, SPLIT, NEIGHBOURS = 600, 200, 3


def record(rec: Recorder) -> None:
    random = np.random.RandomState(11 + rec.salt)
    real, fake = random.standard_normal((NUM, 24)), random.standard_normal((NUM, 24)) * 1.2 + 0.3
    probabilities = random.dirichlet(np.full(12, 0.2), NUM)
    statistics = official_statistics(rec)
    fid = statistics(*moments(real)).frechet_distance(statistics(*moments(fake)))
    rec.save(
        'metrics',
        **dict(real_features=real, fake_features=fake, probs=probabilities, fid=fid),
        inception_score_split200=inception_score(probabilities),
        precision_k3=covered(real, fake),
        recall_k3=covered(fake, real),
    )


def official_statistics(rec: Recorder) -> Any:
    """ADM's class FIDStatistics; its module needs TensorFlow, its square root an argument that scipy no longer has."""
    source = (rec.ref / 'guided-diffusion/evaluations/evaluator.py').read_text()
    body = source[source.index('class FIDStatistics') : source.index('class Evaluator')]
    body = body.replace(', disp=False)', ')').replace('covmean, _ = linalg', 'covmean = linalg')
    namespace: dict[str, Any] = {}
    exec(f'import numpy as np, warnings\nfrom scipy import linalg\n{body}', namespace)  # noqa: S102
    return namespace['FIDStatistics']


def moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.mean(features, 0), np.cov(features, rowvar=False)


def inception_score(probabilities: np.ndarray) -> float:
    """Over splits in their order, as ADM's evaluator, whose splits are of 5000."""
    scores = []
    for i in range(0, NUM, SPLIT):
        part = probabilities[i : i + SPLIT]
        divergence = part * (np.log(part) - np.log(np.mean(part, 0, keepdims=True)))
        scores.append(np.exp(np.mean(np.sum(divergence, 1))))
    return float(np.mean(scores))


def covered(balls: np.ndarray, points: np.ndarray) -> float:
    """Share of `points` that lie as near to one of `balls` as its third neighbour."""
    radii = np.sort(distances(balls, balls), 1)[:, NEIGHBOURS]
    return float((distances(balls, points) <= radii[:, None]).any(0).mean())


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))
