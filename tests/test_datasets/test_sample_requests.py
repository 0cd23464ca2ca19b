"""Requests for samples: which classes, and that they are addressable."""

import pytest
import torch
from mmengine.dataset import default_collate

from usp_mm.datasets import SampleRequests


def test_random_classes_depend_on_seed_and_index_alone():
    many, few = SampleRequests(10_000, 10, seed=3), SampleRequests(5, 10, seed=3)
    assert torch.equal(many.labels[:5], few.labels)
    counts = torch.bincount(many.labels, minlength=10)
    assert counts.sum() == 10_000 and (counts - 1000).abs().max() < 150
    assert not torch.equal(SampleRequests(100, 10, seed=4).labels, many.labels[:100])
    assert many.metainfo == dict(label_mode='random', seed=3, num_samples=10_000, num_classes=10, classes=None)


def test_balanced_and_given_classes():
    assert SampleRequests(5, 3, 'balanced').labels.tolist() == [0, 1, 2, 0, 1]
    given = SampleRequests(2, 3, labels=[2, 2])
    assert given.labels.tolist() == [2, 2] and given.metainfo['label_mode'] == 'given'


def test_items_collate_to_a_request():
    requests = SampleRequests(4, 3, 'balanced', seed=7)
    batch = default_collate([requests[1], requests[3]])['inputs']
    assert {key: value.tolist() for key, value in batch.items()} == dict(index=[1, 3], label=[1, 0], seed=[7, 7])
    with pytest.raises(IndexError, match='request 4 is out of range for 4 samples'):
        requests[4]


def test_bad_arguments():
    with pytest.raises(ValueError, match="label_mode='even' must be one of"):
        SampleRequests(4, 3, 'even')
    with pytest.raises(ValueError, match=r'labels=\[0, 3\] must be 2 classes from 0 to 2'):
        SampleRequests(2, 3, labels=[0, 3])
    with pytest.raises(ValueError, match='num_samples=0'):
        SampleRequests(0, 3)
