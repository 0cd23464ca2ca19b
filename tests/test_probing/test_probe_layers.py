import json
import math

import pytest
import torch
from helpers.probe_world import ProbeWorld
from PIL import Image
from torch import nn

from usp_mm.layers.probe_head import ProbeHead
from usp_mm.probing.data import check_same_classes, open_data, shuffled
from usp_mm.probing.features import FrozenModel, load_frozen
from usp_mm.probing.layer_probe import HeadTrainer, ProbeSettings, lr_factor, make_heads, probe_layers, score_heads
from usp_mm.probing.report import picture_title, write_probe_report

SHORT = ProbeSettings(epochs=3, batch_size=16, optimizer='adamw')


@pytest.fixture(scope='module')
def world(demo_data, tiny_vae_folder, tmp_path_factory):
    return ProbeWorld(tmp_path_factory.mktemp('probe'), demo_data, tiny_vae_folder)


def load(world, name, **kwargs):
    return load_frozen(world.config(name), world.checkpoint(name), device='cpu', **kwargs)


def splits(world, name='usp', root=None, **kwargs):
    cfg, root = world.config(name), root or world.caches
    return open_data(cfg, root / 'train', training=True, **kwargs), open_data(cfg, root / 'val', training=False)


def state(heads):
    return {name: tensor.clone() for name, tensor in heads.state_dict().items()}


@pytest.mark.parametrize('optimizer', ['lars', 'adamw'])
def test_together_as_alone(world, optimizer):
    model, (train, val) = load(world, 'sit'), splits(world, 'sit')
    settings = ProbeSettings(epochs=3, batch_size=16, optimizer=optimizer, lr=0.01 if optimizer == 'adamw' else 20.0)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    together, rows = probe_layers(model, train, val, [1, 2, 3, 4], settings)
    after = model.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    alone, row = probe_layers(model, train, val, [3], settings)
    for name, tensor in alone['3'].state_dict().items():
        torch.testing.assert_close(together['3'].state_dict()[name], tensor, atol=1e-6, rtol=0)
    assert row == [rows[2]]
    start = make_heads([3], model.network.embed_dims, 10, 0)
    assert (together['3'][1].weight - start['3'][1].weight).abs().max() > 1e-3


def test_keeping_features_changes_nothing(world):
    model, (train, val) = load(world, 'usp'), splits(world)
    results = []
    for keep in (True, False):
        settings = ProbeSettings(epochs=2, batch_size=16, optimizer='adamw', keep_features=keep)
        results.append(probe_layers(model, train, val, [2, 4], settings)[0].state_dict())
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, atol=1e-5, rtol=0)


class Counting(nn.Module):
    """Counts runs of a network."""

    def __init__(self, network):
        super().__init__()
        self.runs = 0
        network.register_forward_pre_hook(self.count)

    def count(self, *_):
        self.runs += 1


@pytest.mark.parametrize(('keep', 'runs'), [(True, 3 + 2), (False, 3 * 2 + 2)])
def test_the_backbone_runs_once_a_batch_for_all_layers(world, keep, runs):
    model, (train, val) = load(world, 'usp'), splits(world)
    counter = Counting(model.network)
    settings = ProbeSettings(epochs=3, batch_size=16, optimizer='adamw', keep_features=keep)
    probe_layers(model, train, val, [1, 2, 3, 4], settings)
    assert counter.runs == runs  # 40 samples in 3 batches, of which training takes the 2 whole ones; 20 in 2


def test_a_planted_signal_is_found(tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(240) % 6
    features = [torch.randn(240, 12, generator=generator) for _ in range(3)]
    features[1][:, :6] += 4 * torch.nn.functional.one_hot(labels, 6)
    settings = ProbeSettings(epochs=10, batch_size=40, optimizer='adamw', lr=0.05)
    heads = make_heads([1, 2, 3], 12, 6, seed=0)
    trainer = HeadTrainer(heads, settings, steps=4)
    for epoch in range(10):
        for batch in shuffled(160, 40, 0, epoch):
            trainer.step([x[batch] for x in features], labels[batch])
    rows = score_heads(heads, iter([([x[160:] for x in features], labels[160:])]), 6)
    assert rows[1]['top1'] > 95
    assert max(rows[0]['top1'], rows[2]['top1']) < 50
    report = write_probe_report(tmp_path, rows, dict(network='planted'))
    assert report['best'] == rows[1]
    assert report['best']['layer'] == 2


def test_the_picture_tells_which_weights_were_probed():
    assert picture_title(dict(network='SiT', weights='model', t=1.0)) == 'SiT, raw weights, t = 1.0'
    assert picture_title(dict(network='DiT', weights='ema', t=0)) == 'DiT, averaged weights, t = 0'
    assert picture_title(dict(network='USPViT', weights=None, t=None)) == 'USPViT'


def test_report_marks_the_best_layer(tmp_path):
    rows = [dict(layer=k, top1=top1, top5=None) for k, top1 in ((2, 10.0), (4, 30.0), (6, 30.0), (8, 20.0))]
    write_probe_report(tmp_path / 'new', rows, dict(checkpoint='x'))
    content = json.loads((tmp_path / 'new' / 'layers.json').read_text())
    assert content == dict(checkpoint='x', best=dict(layer=4, top1=30.0, top5=None), layers=rows)
    assert Image.open(tmp_path / 'new' / 'layers.png').size == (960, 720)
    assert sorted(path.name for path in (tmp_path / 'new').iterdir()) == ['layers.json', 'layers.png']


def test_scores_by_hand():
    class Fixed(nn.Module):
        def forward(self, x):
            return x

    logits = torch.eye(6)[[0, 1, 2, 3]] + torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    # row 3's five highest are all but class 0, and row 2's are too: class 0 is missed there
    rows = score_heads(nn.ModuleDict({'7': Fixed()}), iter([([logits], torch.tensor([0, 1, 0, 5]))]), 6)
    assert rows == [dict(layer=7, top1=50.0, top5=75.0)]
    assert (
        score_heads(nn.ModuleDict({'7': Fixed()}), iter([([logits[:, :5]], torch.tensor([0, 1, 0, 3]))]), 5)[0]['top5'] is None
    )


def test_head_of_table_12():
    head = ProbeHead(8, 3, seed=1)
    assert (head[0].eps, head[0].affine, list(head.state_dict())[-2:]) == (1e-6, False, ['1.weight', '1.bias'])
    assert torch.equal(head[1].weight, ProbeHead(8, 3, seed=1)[1].weight)
    assert not torch.equal(head[1].weight, ProbeHead(8, 3, seed=2)[1].weight)
    assert 0 < head[1].weight.std() < 0.02 and not head[1].bias.any()


def test_schedule():
    assert [lr_factor(step, 10, 0) for step in (0, 5, 10)] == pytest.approx([1.0, 0.5, 0.0])
    assert [lr_factor(step, 13, 3) for step in (0, 1, 2, 3, 8)] == pytest.approx([0.25, 0.5, 0.75, 1.0, 0.5])
    assert ProbeSettings().describe() == dict(
        epochs=90, batch_size=1024, optimizer='lars', lr=0.4, warmup_epochs=10.0, seed=0, keep_features=None
    )
    assert ProbeSettings(optimizer='adamw').peak_lr == 0.01


def test_batches_of_an_epoch():
    first, again, second = shuffled(10, 4, 1, 0), shuffled(10, 4, 1, 0), shuffled(10, 4, 1, 1)
    assert first == again != second
    assert [len(batch) for batch in first] == [4, 4]
    assert len({*first[0], *first[1]}) == 8


def test_images_pass_the_pipeline_of_a_probe(world):
    plain = open_data(world.config('usp'), world.images / 'train', training=True, augment=None)
    assert not plain.augmented
    assert [step['type'] for step in plain.pipeline] == ['LoadImage', 'ADMCenterCrop', 'PackInputs']
    cfg = world.config('vit')
    steps = [dict(type='SeedBySample'), dict(type='LoadImage'), dict(type='RandomCrop', crop_size=64, padding=16)]
    cfg.train_dataloader.dataset = dict(type='ImageFolder', pipeline=[*steps, dict(type='PackInputs')])
    cfg.val_dataloader.dataset = dict(type='ImageFolder', pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    train, val = splits(world, root=world.images)[0], open_data(cfg, world.images / 'val', training=False)
    varied = open_data(cfg, world.images / 'train', training=True, augment=None)
    assert (train.augmented, varied.augmented, val.augmented) == (False, True, False)
    assert [step['type'] for step in val.pipeline] == ['LoadImage', 'PackInputs']
    model = load(world, 'usp')
    once = ProbeSettings(epochs=1, batch_size=16, optimizer='adamw')
    heads = [probe_layers(model, varied, val, [4], once)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])  # its crops too depend on the seed alone
    steady = probe_layers(model, open_data(cfg, world.images / 'train', training=True), val, [4], once)[0].state_dict()
    assert not torch.allclose(steady['4.0.running_mean'], heads[0]['4.0.running_mean'], atol=1e-4)
    with pytest.raises(ValueError, match='keep them, or augment, not both'):
        probe_layers(model, varied, val, [4], ProbeSettings(batch_size=16, keep_features=True))


def test_cached_latents_are_those_of_the_images(world):
    model = load(world, 'dit')
    (cached, _), (images, _) = splits(world, 'dit'), splits(world, 'dit', root=world.images)
    (a,), labels = model(next(iter(cached.loader([[0, 7, 33]]))), [4])
    (b,), same = model(next(iter(images.loader([[0, 7, 33]]))), [4])
    assert labels.tolist() == same.tolist()
    assert (a - b).abs().max() < 1e-2 * a.abs().max()  # caches are float16


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(epochs=0), 'epochs=0 must be at least 1'),
        (dict(batch_size=1), 'batch_size=1 must be at least 2'),
        (dict(optimizer='sgd'), "unknown optimizer 'sgd'"),
        (dict(lr=0.0), 'lr=0.0 must be positive'),
        (dict(epochs=5, warmup_epochs=5), 'warmup_epochs=5 must be from 0 to less than epochs=5'),
        (dict(seed=-1), 'seed=-1 must be'),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ProbeSettings(**settings)


def test_bad_data(world, tmp_path):
    model, (train, val) = load(world, 'usp'), splits(world)
    with pytest.raises(ValueError, match='batch_size=1024 is more than the 40 samples'):
        probe_layers(model, train, val, [1], ProbeSettings())
    with pytest.raises(ValueError, match='layer 9 is not there'):
        probe_layers(model, train, val, [1, 9], SHORT)
    with pytest.raises(FileNotFoundError, match='no folder at'):
        open_data(world.config('usp'), tmp_path / 'none', training=False)
    cfg = world.config('usp')
    cfg.model.backbone.img_size = 128
    with pytest.raises(ValueError, match='image_size: 64 in the cache, 128 in the config'):
        open_data(cfg, world.caches / 'val', training=False)
    with pytest.raises(ValueError, match='flip=True has nothing to choose'):
        splits(world, augment=True)
    with pytest.raises(ValueError, match='no augmentation for the images'):
        splits(world, root=world.images, augment=True)
    for name in ('0', 'other'):
        (tmp_path / 'two' / name).mkdir(parents=True)
        Image.new('RGB', (64, 64)).save(tmp_path / 'two' / name / 'a.png')
    with pytest.raises(ValueError, match=r"differ \(10 and 2\): missing '1', '2', '3' and 6 more; extra "):
        check_same_classes(train, open_data(world.config('usp'), tmp_path / 'two', training=False))


def test_divergence_is_told(world):
    class Broken(FrozenModel):
        def __call__(self, batch, layers, split=0):
            features, labels = super().__call__(batch, layers, split)
            return [x * math.nan if k == 2 else x for k, x in zip(layers, features, strict=True)], labels

    model, (train, val) = load(world, 'usp'), splits(world)
    broken = Broken(model.network, model.preprocessor)
    with pytest.raises(ValueError, match='the probe of layer 2 diverged in epoch 1'):
        probe_layers(broken, train, val, [1, 2], SHORT)
