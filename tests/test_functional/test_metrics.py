import math

import numpy as np
import pytest
import scipy.linalg
import torch
from helpers import golden

from usp_mm.functional import metrics
from usp_mm.functional.metrics import (
    RunningMoments,
    density_coverage,
    frechet_distance,
    inception_score,
    mean_covariance,
    neighbour_radii,
    precision_recall,
    vendi_score,
)


def features(num, size, seed=0, shift=0.0):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((num, size)) + shift)


@pytest.fixture(scope='module')
def official():
    return {name: torch.from_numpy(array) for name, array in golden.load('metrics').items()}


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_golden_numbers(official, dtype):
    real, fake = official['real_features'].to(dtype), official['fake_features'].to(dtype)
    fid = frechet_distance(*mean_covariance(real), *mean_covariance(fake))
    assert fid == pytest.approx(float(official['fid']), rel=1e-7)
    score = inception_score(official['probs'].to(dtype), split_size=200)
    assert score == pytest.approx(float(official['inception_score_split200']), rel=1e-6)
    assert precision_recall(real, fake, k=3) == (float(official['precision_k3']), float(official['recall_k3']))


def test_moments_of_batches_and_processes_add_up():
    everything = features(57, 5, shift=100.0)
    parts = [RunningMoments(), RunningMoments()]
    for i, batch in enumerate(everything.split(9)):
        parts[i % 2].update(batch, chunk=4)
    whole = RunningMoments()
    whole.count = parts[0].count + parts[1].count
    whole.total, whole.outer = parts[0].total + parts[1].total, parts[0].outer + parts[1].outer
    for mean, covariance in (whole.mean_covariance(), mean_covariance(everything)):
        np.testing.assert_allclose(mean, everything.numpy().mean(0), rtol=1e-13)
        np.testing.assert_allclose(covariance, np.cov(everything.numpy(), rowvar=False), atol=1e-9)
    with pytest.raises(ValueError, match='at least 2 samples, got 1'):
        mean_covariance(everything[:1])


def test_frechet_distance_of_known_gaussians():
    mean, variance = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])
    other_mean, other_variance = torch.tensor([4.0, 6.0]), torch.tensor([1.0, 25.0])
    expected = 9 + 16 + (2 - 1) ** 2 + (3 - 5) ** 2
    assert frechet_distance(mean, variance.diag(), other_mean, other_variance.diag()) == pytest.approx(expected)
    one, two = mean_covariance(features(30, 6)), mean_covariance(features(40, 6, seed=1) * 2)
    root = scipy.linalg.sqrtm(one[1].numpy() @ two[1].numpy()).real
    expected = float(((one[0] - two[0]) ** 2).sum()) + np.trace(one[1].numpy() + two[1].numpy() - 2 * root)
    assert frechet_distance(*one, *two) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_with_fewer_samples_than_features():
    few, many = mean_covariance(features(7, 20)), mean_covariance(features(60, 20, seed=1))
    values, vectors = np.linalg.eigh(few[1].numpy())
    root = vectors * np.sqrt(np.clip(values, 0, None))
    nuclear = np.linalg.svd(root.T @ np.linalg.cholesky(many[1].numpy()), compute_uv=False).sum()
    expected = float(((few[0] - many[0]) ** 2).sum() + few[1].trace() + many[1].trace()) - 2 * nuclear
    assert frechet_distance(*few, *many) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(*few, *few) == pytest.approx(0, abs=1e-6)


def test_inception_score_takes_splits_in_order():
    certain = torch.eye(4).repeat(2, 1)  # zeros included
    assert inception_score(certain, split_size=4) == pytest.approx(4)
    assert inception_score(certain, split_size=5) == pytest.approx((math.exp(_entropy([2, 1, 1, 1])) + 3) / 2)
    assert inception_score(certain.sort(0).values, split_size=8) == pytest.approx(inception_score(certain.sort(0).values))
    assert inception_score(torch.full((10, 3), 1 / 3)) == pytest.approx(1)


def _entropy(counts):
    share = np.array(counts) / sum(counts)
    return -(share * np.log(share)).sum()


def distances(a, b):
    return np.linalg.norm(a.numpy()[:, None] - b.numpy()[None], axis=-1)


@pytest.fixture(scope='module')
def two_sets():
    return features(30, 4), 0.8 * features(45, 4, seed=1, shift=0.3)


def test_precision_and_recall_by_definition(two_sets):
    real, fake = two_sets
    real_radii, fake_radii = np.sort(distances(real, real))[:, 3], np.sort(distances(fake, fake))[:, 3]
    between = distances(real, fake)
    precision = (between <= real_radii[:, None]).any(0).mean()
    recall = (between <= fake_radii[None]).any(1).mean()
    assert 0.2 < recall < precision < 1
    assert precision_recall(real, fake, k=3) == (precision, recall)
    np.testing.assert_allclose(neighbour_radii(real, 3), real_radii, rtol=1e-12)


def test_density_and_coverage_by_definition(two_sets):
    real, fake = two_sets[0], two_sets[1][:12]
    inside = distances(real, fake) < np.sort(distances(real, real))[:, 5][:, None]
    density, coverage = density_coverage(real, fake, k=5)
    assert density == pytest.approx(inside.sum() / (5 * len(fake)))
    assert coverage == inside.any(1).mean() < 1
    assert density_coverage(real, real + 1e-9, k=5)[1] == 1


def test_the_size_of_a_block_changes_nothing(two_sets, monkeypatch):
    whole = precision_recall(*two_sets), density_coverage(*two_sets)
    monkeypatch.setattr(metrics, '_BLOCK', 100)
    assert (precision_recall(*two_sets), density_coverage(*two_sets)) == whole


def test_too_few_samples_for_k():
    with pytest.raises(ValueError, match='k=3 nearest neighbours need at least 4 samples, got 3'):
        precision_recall(features(9, 2), features(3, 2), k=3)
    with pytest.raises(ValueError, match='k=5 nearest neighbours need at least 6 samples, got 5'):
        density_coverage(features(5, 2), features(9, 2))


def test_vendi_score_counts_distinct_samples():
    assert vendi_score(torch.eye(5)) == pytest.approx(5)
    assert vendi_score(torch.eye(5)[[0, 0, 1, 1]] * torch.tensor([[1.0], [3.0], [2.0], [5.0]])) == pytest.approx(2)
    assert vendi_score(torch.ones(8, 3)) == pytest.approx(1)
    more_samples, fewer = features(40, 6), features(6, 40)
    for x in (more_samples, fewer):
        unit = x / x.norm(dim=1, keepdim=True)
        values = torch.linalg.eigvalsh(unit @ unit.T / len(x))
        values = values[values > 1e-12]
        assert vendi_score(x) == pytest.approx(float((-(values * values.log()).sum()).exp()))
