"""Compare two sets of images by their features, and rate a single set.

Fréchet distance: Heusel et al., arXiv 1706.08500. Inception score: Salimans et al., arXiv 1606.03498. Precision and
recall: Kynkäänniemi et al., arXiv 1904.06991. Density and coverage: Naeem et al., arXiv 2002.09797. Vendi score:
Friedman & Dieng, arXiv 2210.02410.

Everything is computed in float64, whatever the input's dtype: distances between near neighbours are small differences of
large numbers, and the result should not depend on the sizes of batches and chunks.

Shape legend: R real samples, F fake (generated) samples, N samples of either kind, D features.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Number of distances in memory at a time, 8 bytes each.
_BLOCK = 2**25


def mean_covariance(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean float64[D] and unbiased covariance float64[D, D] of features [N, D].

    Raises:
        ValueError: There are fewer than two samples.
    """
    moments = RunningMoments()
    moments.update(features)
    return moments.mean_covariance()


class RunningMoments:
    """Mean and covariance of features given in batches; sum `count`, `total` and `outer` to merge several processes."""

    def __init__(self) -> None:
        self.count = 0
        self.total = torch.zeros(0, dtype=torch.float64)
        self.outer = torch.zeros(0, 0, dtype=torch.float64)

    def update(self, features: Tensor, chunk: int = 4096) -> None:
        """Add features [N, D], `chunk` rows at a time."""
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
        """Mean and covariance of all features so far, as from the function of this name."""
        if self.count < 2:
            raise ValueError(f'a covariance needs at least 2 samples, got {self.count}')
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        return mean, (covariance + covariance.T) / 2


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> float:
    """Fréchet distance of two Gaussians: ‖μ1 - μ2‖² + tr(Σ1 + Σ2 - 2(Σ1Σ2)^½) (arXiv 1706.08500, eq. 6).

    With Σ1 = AAᵀ, Σ1Σ2 has the eigenvalues of the symmetric AᵀΣ2A, so the trace of its root is the sum of their square roots.
    No matrix root is needed, and singular covariances (fewer samples than features) are no special case.
    """
    mean1, covariance1, mean2, covariance2 = (x.double() for x in (mean1, covariance1, mean2, covariance2))
    values, vectors = torch.linalg.eigh(covariance1)
    root = vectors * values.clamp(min=0).sqrt()
    trace_root = torch.linalg.eigvalsh(root.T @ covariance2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + covariance1.trace() + covariance2.trace() - 2 * trace_root
    return float(distance)


def inception_score(probabilities: Tensor, split_size: int = 5000) -> float:
    """Inception score: mean over consecutive splits of exp(E_x KL(p(y|x) ‖ p(y))), where p(y) is the split's mean.

    Args:
        probabilities: [N, classes], in the order of the samples; each row sums to one.
        split_size: Samples per split, as in ADM's evaluator (other implementations use ten splits); the last may be smaller.
    """
    scores = []
    for part in probabilities.double().split(split_size):
        divergence = torch.xlogy(part, part) - torch.xlogy(part, part.mean(0, keepdim=True))
        scores.append(divergence.sum(1).mean().exp())
    return float(torch.stack(scores).mean())


def _distances(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the Euclidean distances of a block of n rows to all columns, float64[n, len(columns)], with the block's slice."""
    columns = columns.double()
    step = max(1, _BLOCK // len(columns))
    for start in range(0, len(rows), step):
        chosen = slice(start, min(start + step, len(rows)))
        yield chosen, torch.cdist(rows[chosen].double(), columns)


def neighbour_radii(features: Tensor, k: int) -> Tensor:
    """Distance of each sample to its k-th nearest neighbour, itself not counted, float64[N].

    Raises:
        ValueError: There are k samples or fewer.
    """
    if not 0 < k < len(features):
        raise ValueError(f'k={k} nearest neighbours need at least {max(k, 1) + 1} samples, got {len(features)}')
    return torch.cat([block.kthvalue(k + 1, dim=1).values for _, block in _distances(features, features)])


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall: shares of fakes in a real sample's k-neighbour ball and vice versa (arXiv 1904.06991, eq. 1, 2).

    Args:
        real: [R, D].
        fake: [F, D]; R and F may differ (ADM's evaluator takes 10,000 and 50,000).

    Raises:
        ValueError: One of the sets has k samples or fewer.
    """
    real_radii, fake_radii = neighbour_radii(real, k), neighbour_radii(fake, k)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=fake.device)
    recalled = []
    for chosen, block in _distances(real, fake):
        precise |= (block <= real_radii[chosen, None]).any(0)
        recalled.append((block <= fake_radii).any(1))
    return _share(precise), _share(torch.cat(recalled))


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Density and coverage of the fakes (arXiv 2002.09797, eq. 3, 4).

    Density is the mean number of real k-neighbour balls that contain a fake, divided by k, and may exceed 1. Coverage is the
    share of real balls that contain a fake. The balls are open here and closed in `precision_recall`, as in the code of the
    respective paper.

    Args:
        real: [R, D].
        fake: [F, D], any F ≥ 1.

    Raises:
        ValueError: There are k real samples or fewer.
    """
    radii = neighbour_radii(real, k)
    balls, covered = 0, []
    for chosen, block in _distances(real, fake):
        inside = block < radii[chosen, None]
        balls += int(inside.sum())
        covered.append(inside.any(1))
    return balls / (k * len(fake)), _share(torch.cat(covered))


def vendi_score(features: Tensor) -> float:
    """Vendi score: the effective number of distinct samples, from 1 to N (arXiv 2210.02410, eq. 2).

    It is exp of the entropy of the eigenvalues of K/N, where K holds the cosine similarities. If D < N, the D × D matrix is
    used instead, which has the same eigenvalues apart from zeros.
    """
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    kernel = unit @ unit.T if len(unit) <= unit.shape[1] else unit.T @ unit
    values = torch.linalg.eigvalsh(kernel / len(unit)).clamp(min=0)
    return math.exp(-float(torch.xlogy(values, values).sum()))


def _share(hits: Tensor) -> float:
    return int(hits.sum()) / len(hits)
