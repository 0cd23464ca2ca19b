"""Weighted nearest-neighbour classification of features, as in DINO (arXiv 2104.14294) and Wu et al. (arXiv 1805.01978).

Shape legend: M samples with known classes, N queries, D features, K neighbours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize


def nearest(
    queries: Tensor, bank: Tensor, k: int, *, query_chunk: int = 1024, bank_chunk: int = 65536, device: str | None = None
) -> tuple[Tensor, Tensor]:
    """The k samples with the highest cosine similarity to each query, the nearest first.

    Args:
        queries: float[N, D].
        bank: float[M, D], M >= k.
        k: Number of neighbours.
        query_chunk, bank_chunk: Rows compared at a time; at most query_chunk · bank_chunk similarities (256 MiB) are in memory.
        device: Device on which chunks are compared, by default that of the features.

    Returns:
        Similarities float32[N, k] and row numbers in `bank` int64[N, k], on `device`.

    Raises:
        ValueError: k is not in 1 … M, the features differ in width, or a chunk size is below 1.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f'k={k} neighbours must be from 1 to {len(bank)}, the samples there are')
    if queries.shape[1] != bank.shape[1]:
        raise ValueError(f'queries have {queries.shape[1]} features and the samples {bank.shape[1]}: take both from one model')
    if query_chunk < 1 or bank_chunk < 1:
        raise ValueError(f'query_chunk={query_chunk} and bank_chunk={bank_chunk} must be at least 1')
    where = torch.device(device or queries.device)
    parts = [_nearest(part.to(where), bank, k, bank_chunk) for part in queries.split(query_chunk)]
    return torch.cat([similarity for similarity, _ in parts]), torch.cat([row for _, row in parts])


def _nearest(queries: Tensor, bank: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """`nearest` for one chunk of queries: goes through the chunks of `bank` and keeps the best k rows so far."""
    queries = normalize(queries.float(), dim=1)
    best, rows = queries.new_zeros(len(queries), 0), torch.zeros(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), chunk):
        part = normalize(bank[start : start + chunk].to(queries.device).float(), dim=1)
        similarity, place = (queries @ part.T).topk(min(k, len(part)), dim=1)
        best, rows = torch.cat([best, similarity], dim=1), torch.cat([rows, place + start], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        rows = rows.gather(1, kept)
    return best, rows


def votes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float = 0.07) -> Tensor:
    """The vote for each class: the sum of exp(similarity / temperature) over the neighbours of that class.

    Each row is divided by the vote of its nearest neighbour, so that it can't overflow at any temperature.

    Args:
        similarity: float[N, K], in descending order.
        labels: int64[N, K], classes of the neighbours, 0 … num_classes - 1.
        num_classes: Number of classes.
        temperature: A number above 0.

    Returns:
        float64[N, num_classes].
    """
    if temperature <= 0:
        raise ValueError(f'temperature={temperature} must be positive')
    similarity = similarity.double()
    weight = torch.exp((similarity - similarity[:, :1]) / temperature)
    return weight.new_zeros(len(weight), num_classes).scatter_add_(1, labels, weight)


def rank_classes(votes: Tensor, top: int) -> Tensor:
    """The `top` classes with the most votes, int64[N, top]; -1 in place of a class without votes."""
    value, label = votes.topk(top, dim=1)
    return torch.where(value > 0, label, -1)


def knn_accuracy(
    similarity: Tensor,
    neighbours: Tensor,
    labels: Tensor,
    num_classes: int,
    ks: Sequence[int],
    *,
    temperature: float = 0.07,
    top: Sequence[int] = (1, 5),
    chunk: int = 4096,
) -> dict[int, dict[int, float]]:
    """Percentage of queries whose class is among the `top` classes with the most votes of the k nearest neighbours.

    Args:
        similarity: float[N, K], as `nearest` returns it.
        neighbours: int64[N, K], classes of the neighbours.
        labels: int64[N], classes of the queries.
        num_classes: Number of classes.
        ks: Numbers of neighbours k, each in 1 … K.
        temperature: See `votes`.
        top: Numbers of classes, each in 1 … num_classes.
        chunk: Number of queries whose votes are in memory at a time.

    Returns:
        {k: {top: accuracy}}.
    """
    hits = {k: torch.zeros(len(top), dtype=torch.float64) for k in ks}
    for rows in torch.arange(len(labels)).split(chunk):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        for k in ks:
            ranked = rank_classes(votes(similarity[part, :k], neighbours[part, :k], num_classes, temperature), max(top))
            hit = ranked == labels[part, None]
            hits[k] += torch.stack([hit[:, :n].any(1).sum() for n in top]).double().cpu()
    return {k: dict(zip(top, (100 * found / len(labels)).tolist(), strict=True)) for k, found in hits.items()}
