"""Probes that train on a few labels of each class."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from helpers.probe_world import CONFIGS, ProbeWorld
from helpers.small_world import run_tool
from mmengine.config import Config

from usp_mm.datasets.label_subset import label_subset
from usp_mm.probing.arguments import load_probe, probe_facts
from usp_mm.probing.data import extract, in_order, open_data, with_epoch
from usp_mm.probing.features import load_frozen


@pytest.fixture(scope='module')
def world(demo_data, tiny_vae_folder, tmp_path_factory):
    return ProbeWorld(tmp_path_factory.mktemp('probe'), demo_data, tiny_vae_folder)


def data_of(world, root=None, split='train', **kwargs):
    return open_data(world.config('usp'), (root or world.caches) / split, training=split == 'train', **kwargs)


def arguments(world, **kwargs):
    given = dict(seed=3, workers=0, data=world.caches, train=None, val=None, weights=None, t=None, device='cpu')
    return Namespace(**{**given, 'checkpoint': str(world.checkpoint('usp')), 'config': 'usp', 'labels_per_class': 2, **kwargs})


def test_the_data_are_narrowed_to_the_chosen_rows(world):
    for root in (world.caches, world.images):
        whole = data_of(world, root)
        few = whole.with_labels(2, 5)
        rows = label_subset(whole.dataset.get_gt_labels(), 2, 5, whole.classes, '').tolist()
        assert (len(whole), len(few), list(few.rows), few.classes) == (40, 20, rows, whole.classes)
        assert (few.labels_per_class, few.labels_seed, whole.labels_per_class) == (2, 5, None)
        (batch,) = few.loader([[3, 0]])
        assert [int(sample.sample_idx) for sample in batch['data_samples']] == [rows[3], rows[0]]
        epoch = next(iter(few.loader(with_epoch([[1, 2]], 7, 4))))['data_samples'][0].sample_idx
        assert (int(epoch), epoch.sample, epoch.epoch, epoch.seed) == (rows[1], rows[1], 4, 7)


def test_features_of_few_are_those_of_all_at_their_rows(world):
    """Noise included: it follows the sample's own number, so that one label and two see the same features."""
    model = load_frozen(world.config('sit'), world.checkpoint('sit'), device='cpu', t=0.5)
    whole = data_of(world)
    (every,), labels = extract(model, whole, [4], 40, 'all')
    for per_class in (1, 2, 3):
        few = whole.with_labels(per_class, 0)
        (found,), classes = extract(model, few, [4], 7, 'few')
        torch.testing.assert_close(found, every[list(few.rows)], atol=1e-5, rtol=0)
        assert classes.tolist() == labels[list(few.rows)].tolist()
        assert np.bincount(classes).tolist() == [per_class] * 10


def test_kept_features_know_which_samples_they_are_of(world):
    for root in (world.caches, world.images):
        whole = data_of(world, root)
        found = [whole.fingerprint(), *(whole.with_labels(n, seed).fingerprint() for n, seed in ((1, 0), (1, 1), (2, 0)))]
        assert len(set(found)) == 4
        assert whole.with_labels(2, 0).fingerprint() == found[3]
    assert list(in_order(len(whole.with_labels(1, 0)), 4))[-1] == [8, 9]


def test_the_report_says_how_many_and_which(world):
    args = arguments(world)
    model, train, val = load_probe(world.config('usp'), args, pool='mean')
    facts = probe_facts(args, model, train, val)
    assert {key: facts[key] for key in ('labels_per_class', 'labels_seed', 'num_train', 'num_val', 'num_classes')} == dict(
        labels_per_class=2, labels_seed=3, num_train=20, num_val=20, num_classes=10
    )
    args = arguments(world, labels_per_class=None)
    facts = probe_facts(args, *load_probe(world.config('usp'), args, pool='mean'))
    assert (facts['labels_per_class'], facts['labels_seed'], facts['num_train']) == (None, None, 40)


@pytest.mark.parametrize(
    ('number', 'message'),
    [
        (5, r"^class '8' of '.*train' has 3 samples, fewer than labels_per_class=5: ask for 3"),
        (0, '^labels_per_class=0 must be'),
    ],
)
def test_too_many_labels_are_refused(world, number, message):
    with pytest.raises(ValueError, match=message):
        load_probe(world.config('usp'), arguments(world, labels_per_class=number), pool='mean')


def test_a_setting_of_training_that_a_probe_would_not_read_is_refused(world):
    cfg = world.config('vit')
    cfg.train_dataloader.dataset.labels_per_class = 2
    with pytest.raises(ValueError, match='is for training: give --labels-per-class 2 here'):
        load_probe(cfg, arguments(world), pool='mean')
    cfg.train_dataloader.dataset = Config(dict(d=dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset))).d
    with pytest.raises(ValueError, match=r'^train_dataloader\.dataset\.labels_per_class=2 is for training'):
        load_probe(cfg, arguments(world), pool='mean')


@pytest.mark.slow
def test_both_tools_take_the_option(world, tmp_path):
    words = [CONFIGS['usp'], world.checkpoint('usp'), '--data', world.caches, '--device', 'cpu', '--labels-per-class', 2]
    options = ['--seed', 1, '--cfg-options', *world.options]
    done = run_tool('tools/knn.py', *words, '--work-dir', tmp_path, '--k', 1, 20, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'knn.json').read_text())
    assert (found['labels_per_class'], found['labels_seed'], found['num_train'], found['num_val']) == (2, 1, 20, 20)
    few = ['--epochs', 2, '--batch-size', 20, '--optimizer', 'adamw', '--layers', 4]
    done = run_tool('tools/probe_layers.py', *words, '--work-dir', tmp_path, *few, *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'layers.json').read_text())
    assert (found['labels_per_class'], found['labels_seed'], found['num_train']) == (2, 1, 20)
    failed = run_tool('tools/knn.py', *words, '--work-dir', tmp_path, '--k', 21, *options)
    assert failed.returncode == 1 and 'k=21 neighbours must be from 1 to 20' in failed.stderr
