"""DenoisingLoss in validation: what is logged and kept, for any number of processes, and what is refused before training."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from helpers.forked_world import forked_world
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf, train_quickly
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from torch.utils.data import DataLoader

from usp_mm.datasets import SampleRequests
from usp_mm.datasets.mmagic_samples import latents_from_mmagic, latents_to_mmagic
from usp_mm.evaluation import DenoisingLoss
from usp_mm.registry import METRICS, MODELS

CONFIG = 'configs/sit/sit-tiny-p2_denoising-loss_1xb64-2k_digits.py'
PLAIN = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'
KEYS = {
    'denoising_loss', 'standard_error', 'times', 'per_time', 'num_samples', 'seed', 'weights', 'objective', 'error', 'left_out',
}  # fmt: skip


def small(small_world, path=CONFIG, **metric):
    cfg = shrink_generation(small_world, load_leaf(path))
    del cfg.default_hooks['run_info'], cfg.default_hooks['visualization']
    if path == CONFIG:
        cfg.val_evaluator.metrics.update(num_times=3, **metric)
    return cfg


def logged(folder: Path, name: str) -> list[float]:
    records = map(json.loads, next(folder.glob('*/vis_data/scalars.json')).read_text().splitlines())
    return [record[name] for record in records if name in record]


@pytest.fixture(scope='module')
def generator(small_world):
    """A generator whose output is not 0 and whose average has weights of its own; latents, classes and numbers of samples."""
    torch.manual_seed(0)
    model = MODELS.build(small(small_world).model).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    return model, torch.randn(11, 4, 8, 8), torch.arange(11) % 2


def evaluate(generator, rank, world, size, **settings):
    model, latents, labels = generator
    metric = DenoisingLoss(num_times=3, **settings)
    metric.take(model)
    metric.expect(len(latents))
    own = [*range(11), 0, 1][rank::world]  # a sampler that pads: two samples come twice
    for start in range(0, len(own), size):
        chosen = own[start : start + size]
        metric.add(chosen, latents[chosen], labels[chosen])
    return metric.evaluate(), metric.report


def test_the_value_is_the_same_for_any_batch_and_number_of_processes(generator, tmp_path):
    alone = {size: evaluate(generator, 0, 1, size) for size in (3, 8, 13)}
    (value, report), *others = alone.values()
    assert all(other == (value, report) for other in others)
    assert set(report) == KEYS and report['num_samples'] == 11 and report['weights'] == 'ema'
    assert report['times'] == pytest.approx([1 / 6, 1 / 2, 5 / 6]) and len(report['per_time']) == 3
    assert report['denoising_loss'] == pytest.approx(math.fsum(report['per_time']) / 3, rel=1e-14)
    assert (report['error'], report['left_out'], report['seed']) == ('flow', [], 0)

    def share(rank):
        (tmp_path / f'{rank}.json').write_text(json.dumps([evaluate(generator, rank, 2, size) for size in (3, 8)]))

    assert forked_world(2, share) == [0, 0]
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    assert first == [[value, report]] * 2
    assert second == [[value, None]] * 2


def test_ema_and_model_are_told_apart(generator):
    values = {name: evaluate(generator, 0, 1, 8, sample_model=name)[0]['denoising_loss'] for name in (None, 'ema', 'model')}
    assert values[None] == values['ema'] != values['model']


def test_training_logs_it_keeps_the_best_and_writes_a_report(small_world, tmp_path):
    cfg = small(small_world, out_dir=str(tmp_path / 'reports'))
    cfg.default_hooks.checkpoint.save_best = 'denoising_loss'
    cfg.train_cfg.update(max_iters=4, val_interval=1)
    cfg.optim_wrapper.optimizer.lr = 0.05  # so that validations differ
    cfg.model.ema.momentum = 0.5
    cfg.model.data_preprocessor.load_vae = False  # nothing is decoded
    runner = train_quickly(cfg, tmp_path / 'run')
    reports = [json.loads((tmp_path / 'reports' / f'denoising_loss_{i}.json').read_text()) for i in range(4)]
    values = [report['denoising_loss'] for report in reports]
    assert logged(tmp_path / 'run', 'denoising_loss') == pytest.approx(values)  # not the mean of the last ten
    assert max(values) - min(values) > 1e-3
    report = reports[-1]
    assert set(report) == KEYS and report['num_samples'] == 4
    best = 1 + values.index(min(values))
    assert [path.name for path in (tmp_path / 'run').glob('best_*')] == [f'best_denoising_loss_iter_{best}.pth']
    # the same as outside of training, one sample at a time
    metric, loader = METRICS.build(dict(type='DenoisingLoss', num_times=3)), runner.val_loop.dataloaders[0]
    metric.prepare(runner.model, loader)
    for item in loader.dataset:
        data = runner.model.data_preprocessor(pseudo_collate([item]), training=False)
        metric.process(None, [one.to_dict() for one in runner.model.predict(**data)])
    assert metric.evaluate() == {'denoising_loss': report['denoising_loss']}


def test_a_part_of_the_samples_is_spread_over_the_data(small_world, tmp_path):
    cfg = small(small_world, num_samples=2, out_dir=str(tmp_path / 'reports'))
    train_quickly(cfg, tmp_path / 'run')
    assert json.loads((tmp_path / 'reports' / 'denoising_loss_0.json').read_text())['num_samples'] == 2
    metric, dataset = DenoisingLoss(num_samples=2), list(range(7))
    assert next(iter(metric.get_metric_sampler(None, DataLoader(dataset, 2), [metric]))).tolist() == [0, 3]
    whole = DataLoader(dataset, 2)
    assert DenoisingLoss().get_metric_sampler(None, whole, []) is whole


def refuses(message, cfg, folder):
    with pytest.raises(ValueError, match=re.escape(message)):
        train_quickly(cfg, folder)
    assert not list(folder.glob('iter_*.pth'))


def test_what_does_not_fit_is_refused_before_the_first_step(small_world, tmp_path):
    training = small_world.cache('tiny', 64, False)
    shared = small(small_world)
    shared.val_dataloader.dataset.data_root = training
    refuses(f"DenoisingLoss has the training data '{training}': give", shared, tmp_path / 'shared')
    requests = small(small_world, PLAIN)
    requests.val_evaluator.metrics = dict(type='DenoisingLoss')
    refuses('the data loader has requests for samples: set val_dataloader.dataset=', requests, tmp_path / 'requests')
    flipped = small(small_world)
    flipped.val_dataloader.dataset.update(data_root=small_world.cache('tiny', 64, True, split='val'), flip=True)
    refuses('set flip=False of its latent cache', flipped, tmp_path / 'flipped')
    many = small(small_world, num_samples=5)
    refuses('num_samples=5, but the held-out data have 4', many, tmp_path / 'many')
    both = small(small_world)
    both.val_evaluator.metrics = [both.val_evaluator.metrics, dict(both.test_evaluator.metrics)]
    refuses('DenoisingLoss needs held-out data and FeatureMetrics requests', both, tmp_path / 'both')
    loop = small(small_world)
    loop.val_cfg = dict(type='ValLoop')
    refuses("does not work in ValLoop: set val_cfg=dict(type='MultiValLoop')", loop, tmp_path / 'loop')
    unaveraged = small(small_world, sample_model='ema')
    unaveraged.model.update(ema=None, sample_model='model')
    del unaveraged.default_hooks['ema']
    refuses('the generator was built with ema=None', unaveraged, tmp_path / 'unaveraged')


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        (dict(num_times=0), 'num_times=0 must be 1 or more'),
        (dict(num_samples=0), 'num_samples=0 must be 1 or more'),
        (dict(seed=-1), r'seed=-1 must be from 0 to 2\^56 - 1'),
    ],
)
def test_numbers_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        DenoisingLoss(**settings)


def test_models_and_samples_that_have_no_such_loss(generator):
    metric = DenoisingLoss()
    assert isinstance(metric, BaseMetric)
    with pytest.raises(ValueError, match='is one of generators: Linear has none'):
        metric.take(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match='was not given the generator'):
        metric.add([0], torch.zeros(1, 4, 8, 8), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"samples lack 'latent' \(they have \['fake_img'\]\)"):
        metric.process(None, [dict(fake_img=1)])
    with pytest.raises(ValueError, match='2 latents come with 0 data samples'):
        generator[0].predict(torch.zeros(2, 4, 8, 8))
    metric.take(generator[0])
    with pytest.raises(ValueError, match='has requests for samples'):
        metric.prepare(generator[0], DataLoader(SampleRequests(4, 2), 2))
    with pytest.raises(ValueError, match='a class 2, the generator 2 classes'):
        metric.add([0], torch.zeros(1, 4, 8, 8), torch.tensor([2]))


def test_latents_go_there_and_back():
    from mmpretrain.structures import DataSample

    samples = [DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i + 1) for i in (4, 7)]
    latents = torch.randn(2, 4, 8, 8)
    numbers, back, labels = latents_from_mmagic([one.to_dict() for one in latents_to_mmagic(latents, samples)])
    assert numbers == [4, 7] and torch.equal(back, latents) and labels.tolist() == [5, 8]
    with pytest.raises(ValueError, match="has no 'gt_label': use labelled data"):
        latents_to_mmagic(latents[:1], [DataSample(metainfo=dict(sample_idx=0))])
