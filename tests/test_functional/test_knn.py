import math

import pytest
import torch

from usp_mm.functional.knn import knn_accuracy, nearest, rank_classes, votes

BANK = torch.tensor([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0]])  # at 0°, 90°, 180° and 45°


def test_neighbours_by_hand():
    similarity, rows = nearest(torch.tensor([[0.0, 5.0], [3.0, 0.0]]), BANK, 3)
    half = math.sqrt(0.5)
    assert rows[:, :2].tolist() == [[1, 3], [0, 3]]
    assert rows[1, 2] == 1  # at 90°, before 180°
    torch.testing.assert_close(similarity, torch.tensor([[1.0, half, 0.0], [1.0, half, 0.0]]))


def test_votes_by_hand():
    # neighbours of classes 0, 2, 2 at 0.9, 0.8, 0.7, temperature 0.1: e^9 against e^8 + e^7, all divided by e^9
    found = votes(torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 2, 2]]), 4, temperature=0.1)
    expected = torch.tensor([[1.0, 0.0, math.exp(-1) + math.exp(-2), 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert rank_classes(found, 4).tolist() == [[0, 2, -1, -1]]  # who has no vote is no answer


def test_temperature_decides_between_one_near_and_two_far():
    similarity, classes = torch.tensor([[0.9, 0.8, 0.8]]), torch.tensor([[0, 1, 1]])
    # exp(0.1 / T) against 2: they are equal at T = 0.1 / ln 2 = 0.144
    assert [int(votes(similarity, classes, 2, t).argmax()) for t in (0.07, 0.14, 0.15, 1.0)] == [0, 0, 1, 1]
    assert votes(similarity, classes, 2, 1e-4).isfinite().all()


def test_accuracy_by_hand():
    similarity = torch.tensor([[0.9, 0.8, 0.8], [0.5, 0.4, 0.3]])
    neighbours, labels = torch.tensor([[0, 1, 1], [2, 1, 1]]), torch.tensor([1, 2])
    found = knn_accuracy(similarity, neighbours, labels, 3, [1, 3], temperature=1.0, top=(1, 2), chunk=1)
    # k = 1: 0 (wrong), 2 (right); k = 3: 1 (right), 1 with 2 second (e^0.4 + e^0.3 > e^0.5)
    assert found == {1: {1: 50.0, 2: 50.0}, 3: {1: 50.0, 2: 100.0}}


@pytest.mark.parametrize(('query_chunk', 'bank_chunk'), [(1, 1), (7, 5), (100, 33), (1000, 1000)])
def test_chunks_change_nothing(query_chunk, bank_chunk):
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(50, 8, generator=generator), torch.randn(100, 8, generator=generator)
    similarity, rows = nearest(queries, bank, 20, query_chunk=query_chunk, bank_chunk=bank_chunk)
    cosine = torch.cosine_similarity(queries[:, None], bank[None], dim=-1)
    expected, order = cosine.sort(dim=1, descending=True)
    torch.testing.assert_close(similarity, expected[:, :20], atol=1e-6, rtol=0)
    assert rows.tolist() == order[:, :20].tolist()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(k=0), 'k=0 neighbours must be from 1 to 4'),
        (dict(k=5), 'k=5 neighbours must be from 1 to 4'),
        (dict(queries=torch.ones(1, 3)), 'queries have 3 features and the samples 2'),
        (dict(bank_chunk=0), 'bank_chunk=0 must be at least 1'),
    ],
)
def test_bad_searches(change, message):
    with pytest.raises(ValueError, match=message):
        nearest(**{'queries': torch.ones(1, 2), 'bank': BANK, 'k': 1, **change})


def test_bad_temperature():
    with pytest.raises(ValueError, match='temperature=0 must be positive'):
        votes(torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64), 1, temperature=0)
