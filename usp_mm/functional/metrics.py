"""How far apart two sets of images are, from their features.

Fréchet distance: Heusel et al., arXiv 1706.08500. Inception score: Salimans et al., arXiv 1606.03498. Precision and
recall: Kynkäänniemi et al., arXiv 1904.06991. Density and coverage: Naeem et al., arXiv 2002.09797. Vendi score:
Friedman & Dieng, arXiv 2210.02410.

Everything is computed in float64, whatever comes in: distances between near neighbours are small differences of large
numbers, and the result should not depend on how the work is cut into pieces.

Shape legend: R real samples, F fake (generated) samples, N samples of either kind, D features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Distances held in memory at a time (8 bytes each).
_BLOCK = 2**25


def mean_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """float64 mean [D] and unbiased covariance [D, D] of features [N, D].

    Raises:
        ValueError: fewer than two samples.
    """
    moments = RunningMoments()
    moments.update(features)
    return moments.mean_covariance()


class RunningMoments:
    """Mean and covariance of features that come in batches; `count`, `total` and `outer` of several processes add up."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(0, dtype=torch.float64)
        self.outer = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor, chunk: int = 4096) -> None:
        """Add samples [N, D]."""
        if self.count == 0:
            size = features.shape[1]
            self.total = torch.zeros(size, dtype=torch.float64, device=features.device)
            self.outer = torch.zeros(size, size, dtype=torch.float64, device=features.device)
        for part in features.split(chunk):
            part = part.double()
            self.total += part.sum(0)
            self.outer.addmm_(part.T, part)
        self.count += len(features)

    def mean_covariance(self) -> tuple[Tensor, Tensor]:
        """As the function of that name."""
        if self.count < 2:
            raise ValueError(f'a covariance needs at least 2 samples, got {self.count}')
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean, (covariance + covariance.T) / 2


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2(Σ1Σ2)^½) of two Gaussians (arXiv 1706.08500, eq. 6).

    With Σ1 = AAᵀ, Σ1Σ2 has the eigenvalues of the symmetric AᵀΣ2A, so the root's trace is the sum of their roots: no
    matrix root, and singular covariances (fewer samples than features) are no special case.
    """
    mean1, covariance1, mean2, covariance2 = (x.double() for x in (mean1, covariance1, mean2, covariance2))
    values, vectors = torch.linalg.eigh(covariance1)
    root = vectors * values.clamp(min=0).sqrt()
    trace_root = torch.linalg.eigvalsh(root.T @ covariance2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_root
    return float(distance)


def inception_score(probabilities: Tensor, split_size: int = 5000) -> float:
    """Mean over consecutive splits of exp(E_x KL(p(y|x) ‖ p(y))), p(y) being the split's mean.

    Args:
        probabilities: [N, classes], each row adding up to one, in the order of the samples.
        split_size: samples a split; the last one may be smaller (ADM's evaluator; other codes cut into ten).
    """
    scores = []
    for part in probabilities.double().split(split_size):
        divergence = torch.xlogy(part, part) - torch.xlogy(part, part.mean(0, keepdim=True))
        scores.append(divergence.sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def _distances(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances, float64[n, len(columns)] for n rows at a time."""
    columns = columns.double()
    step = max(1, _BLOCK // len(columns))
    for start in range(0, len(rows), step):
        chosen = slice(start, min(start + step, len(rows)))
        yield chosen, torch.cdist(rows[chosen].double(), columns)


def neighbour_radii(features: Tensor, k: int) -> Tensor:
    """Distance of each sample to its k-th nearest neighbour, itself not counted, float64[N].

    Raises:
        ValueError: not more than k samples.
    """
    if not 0 < k < len(features):
        raise ValueError(f'k={k} nearest neighbours need at least {max(k, 1) + 1} samples, got {len(features)}')
    return torch.cat([block.kthvalue(k + 1, dim=1).values for _, block in _distances(features, features)])


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Share of fakes within a real sample's k-neighbour ball, and of reals within a fake's (arXiv 1904.06991, eq. 1, 2).

    Args:
        real: [R, D].
        fake: [F, D]; R and F may differ (ADM's evaluator takes 10,000 and 50,000).

    Raises:
        ValueError: not more than k samples on a side.
    """
    real_radii, fake_radii = neighbour_radii(real, k), neighbour_radii(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = []
    for chosen, block in _distances(real, fake):
        precise |= (block <= real_radii[chosen, None]).any(0)
        recalled.append((block <= fake_radii).any(1))
    return _share(precise), _share(torch.cat(recalled))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Real k-neighbour balls around a fake, over k; share of real balls that hold a fake (arXiv 2002.09797, eq. 3, 4).

    Balls are open here, as in the paper's code, and closed in `precision_recall`, as in its. Density may exceed 1.

    Args:
        real: [R, D].
        fake: [F, D], any F ≥ 1.

    Raises:
        ValueError: not more than k real samples.
    """
    radii = neighbour_radii(real, k)
    balls, covered = 0, []
    for chosen, block in _distances(real, fake):
        inside = block < radii[chosen, None]
        balls += int(inside.sum())
        covered.append(inside.any(1))
    return balls / (k * len(fake)), _share(torch.cat(covered))


def vendi_score(features: Tensor) -> float:
    """exp of the entropy of K/N's eigenvalues, K the cosine similarities: the effective number of distinct samples, 1 … N.

    From the D × D matrix when that is the smaller: it has the same eigenvalues but for zeros (arXiv 2210.02410, eq. 2).
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    kernel = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(kernel / len(unit)).clamp(min=0)
    return math.exp(-float(torch.xlogy(values, values).sum()))


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
