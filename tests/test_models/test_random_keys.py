"""Who makes a batch's keys and labels, and that it makes no difference who does."""

import copy

import numpy as np
import pytest
import torch
from helpers.small_training import MIX, Moments, build_model
from mmengine.dataset import default_collate, pseudo_collate
from mmpretrain.models import ClsDataPreprocessor
from mmpretrain.structures import DataSample

from usp_mm.datasets import EpochIndex
from usp_mm.engine.records.flops import count_flops
from usp_mm.functional import random
from usp_mm.models.data_preprocessor import LatentDataPreprocessor
from usp_mm.models.random_keys import labels_of, sample_keys

CPU = torch.device('cpu')


def samples_of(seeds, epoch=3):
    return [DataSample(metainfo=dict(sample_idx=EpochIndex(i, epoch, seed))) for i, seed in enumerate(seeds)]


def batch_of(num=4, collate=default_collate):
    data = Moments(num)
    return collate([data[EpochIndex(i, 2, 5)] for i in range(num)])


def test_keys_draw_as_the_functions_do():
    keys = sample_keys(samples_of([5, 5, 5]), 3, CPU, training=True)
    numbers = torch.arange(3), torch.full((3,), 3)
    assert torch.equal(keys.uniform(4, 'mask'), random.uniform(*numbers, 4, seed=5, stream='mask'))
    assert torch.equal(keys.normal((2, 3), 'noise'), random.normal(*numbers, (2, 3), seed=5, stream='noise'))
    assert (keys.sample.dtype, keys.epoch.dtype, keys.seed) == (torch.int64, torch.int64, 5)
    with pytest.raises(AttributeError):
        keys.seed = 6


def test_a_batch_of_two_seeds_is_refused():
    with pytest.raises(ValueError, match='the samples of a batch carry 2 seeds, 5 and 8 among them; their noise takes one'):
        sample_keys(samples_of([8, 5, 8]), 3, CPU, training=True)


def test_evaluation_without_epochs_goes_by_index_or_row():
    plain = [DataSample(metainfo=dict(sample_idx=i)) for i in (7, 2)]
    for samples, expected in ((plain, [7, 2]), (None, [0, 1]), ([DataSample(), DataSample()], [0, 1])):
        keys = sample_keys(samples, 2, CPU, training=False)
        assert (keys.sample.tolist(), keys.epoch.tolist(), keys.seed) == (expected, [0, 0], 0)


def test_labels_of_a_batch():
    labelled = [DataSample().set_gt_label(i) for i in (3, 1)]
    assert torch.equal(labels_of(labelled, CPU), torch.tensor([3, 1]))
    assert labels_of([labelled[0], DataSample()], CPU) is labels_of(None, CPU) is labels_of([], CPU) is None


@pytest.mark.parametrize('kind', ['pretraining', 'generator'])
def test_a_loss_makes_the_keys_that_it_is_not_given(kind):
    model = build_model(kind).train()
    for collate in (default_collate, pseudo_collate):
        prepared = model.data_preprocessor(batch_of(collate=collate), training=True)
        assert set(prepared) == {'inputs', 'data_samples', 'keys'} | ({'labels'} if kind == 'generator' else set())
        assert (prepared['keys'].sample.tolist(), prepared['keys'].seed) == ([0, 1, 2, 3], 5)
        with_keys = model(**prepared, mode='loss')['loss']
        assert torch.equal(model(prepared['inputs'], prepared['data_samples'], mode='loss')['loss'], with_keys)
    evaluated = model.data_preprocessor(batch_of(), training=False)
    assert set(evaluated) == {'inputs', 'data_samples'}


@pytest.mark.parametrize('training', [True, False])
def test_a_classifier_gets_what_mmpretrains_preprocessor_gives(training):
    targets = dict(num_classes=4, batch_augments=MIX)
    batch = batch_of(8)
    latents = LatentDataPreprocessor(load_vae=False)(copy.deepcopy(batch), training)['inputs']
    given = {LatentDataPreprocessor: batch, ClsDataPreprocessor: {**copy.deepcopy(batch), 'inputs': latents}}
    found = []
    for preprocessor, data in given.items():
        own = dict(load_vae=False) if preprocessor is LatentDataPreprocessor else {}
        torch.manual_seed(0)
        np.random.seed(0)
        found.append(preprocessor(**own, **targets)(data, training))
    assert torch.equal(found[0]['inputs'], found[1]['inputs']) and set(found[0]) == set(found[1])
    assert torch.equal(found[0]['inputs'], latents) is not training
    for one, other in zip(found[0]['data_samples'], found[1]['data_samples'], strict=True):
        assert torch.equal(one.gt_label, other.gt_label) and torch.equal(one.gt_score, other.gt_score)
        assert one.gt_score.dtype == other.gt_score.dtype and one.num_classes == other.num_classes == 4


@pytest.mark.parametrize('label', [4, -1])
def test_a_label_that_is_no_class_is_refused_before_it_reaches_the_device(label):
    batch = batch_of()
    batch['data_samples'][2].set_gt_label(label)
    with pytest.raises(ValueError, match=rf'label {label} is no class: num_classes=4, counted from 0'):
        LatentDataPreprocessor(load_vae=False, num_classes=4, batch_augments=MIX)(batch, training=True)


def test_several_labels_a_sample_are_left_to_mmpretrain():
    batch = batch_of()
    for sample in batch['data_samples']:
        sample.set_gt_label([0, 2])
    out = LatentDataPreprocessor(load_vae=False, num_classes=4, batch_augments=MIX)(batch, training=False)
    assert [sample.gt_score.tolist() for sample in out['data_samples']] == [[1, 0, 1, 0]] * 4


def test_counting_operations_draws_no_keys(monkeypatch):
    monkeypatch.setattr('usp_mm.models.usp.sample_keys', None)  # would warn that a training has none
    assert count_flops(build_model('pretraining').train())['forward'] > 0
