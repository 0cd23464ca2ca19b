"""Data that make no batch are refused with both numbers; data smaller than a batch elsewhere are not."""

import pytest
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf, train_quickly
from mmengine.dataset import DefaultSampler
from torch.utils.data import DataLoader, Subset

from usp_mm.config.data_loaders import check_has_batch
from usp_mm.datasets import EpochInfiniteSampler

PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
GENERATE = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py'
TOLD = (
    r'train_dataloader has {0} samples, which make no batch of 64 x 1 process with drop_last=True: set '
    r'train_dataloader\.batch_size to {0} or less, or train_dataloader\.drop_last=False'
)


def pretraining(small_world):
    cfg = small_world.shrink(load_leaf(PRETRAIN), 64)
    cfg.train_dataloader.batch_size = 64
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True, begin=0, end=1)]
    return cfg


@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
@pytest.mark.parametrize('wrapper', [None, 'RepeatDataset', 'indices'])
def test_fewer_images_than_a_batch(wrapper, loop, small_world, tmp_path):
    cfg, num = pretraining(small_world), 4
    if loop == 'iterations':
        cfg.train_cfg, cfg.param_scheduler = dict(type='IterBasedTrainLoop', max_iters=2), []
    if wrapper == 'RepeatDataset':
        cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
        num = 8
    elif wrapper == 'indices':
        cfg.train_dataloader.dataset.indices = num = 3
    with pytest.raises(ValueError, match=TOLD.format(num)):
        train_quickly(cfg, tmp_path)


def test_what_the_error_advises_trains(small_world, tmp_path):
    cfg = pretraining(small_world)
    cfg.train_dataloader.drop_last = False
    assert train_quickly(cfg, tmp_path / 'a').iter == 1
    cfg = pretraining(small_world)
    cfg.train_dataloader.batch_size = 4
    assert train_quickly(cfg, tmp_path / 'b').iter == 1


def test_no_sample_at_all(small_world, tmp_path):
    cfg = pretraining(small_world)
    cfg.train_dataloader.dataset.indices = 0
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset holds no sample: check its data_root, indices'):
        train_quickly(cfg, tmp_path)
    cfg = shrink_generation(small_world, load_leaf(GENERATE))
    cfg.train_dataloader.dataset.indices = 0
    with pytest.raises(ValueError, match=r'train_dataloader\.dataset holds no sample'):
        train_quickly(cfg, tmp_path)


def test_an_infinite_sampler_fills_a_batch_larger_than_the_data(small_world, tmp_path):
    cfg = shrink_generation(small_world, load_leaf(GENERATE))
    cfg.train_dataloader.batch_size = 10
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.pop('visualization')
    assert train_quickly(cfg, tmp_path).iter == 1


def test_validation(small_world, tmp_path):
    """A batch larger than the data is fine there, unless it is dropped."""
    cfg = small_world.shrink(load_leaf(LINEAR), 64)
    cfg.val_dataloader.update(batch_size=100, drop_last=True)
    with pytest.raises(ValueError, match=r'val_dataloader has 4 samples, which make no batch of 100 x 1 process'):
        train_quickly(cfg, tmp_path)


def test_accumulation_over_more_than_an_epoch(small_world, tmp_path):
    """Each epoch ends with a step, so that its checkpoint can be resumed; the log says so."""
    cfg = pretraining(small_world)
    cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs, cfg.optim_wrapper.accumulative_counts = 4, 4, 3
    runner = train_quickly(cfg, tmp_path)
    assert {int(state['step']) for state in runner.optim_wrapper.optimizer.state.values()} == {4}
    log = next(tmp_path.glob('*/*.log')).read_text()
    assert 'accumulative_counts=3 is more than the 1 iterations of an epoch: the optimizer steps at the end of each' in log


def test_several_processes(monkeypatch):
    def check(num, batch, processes, sampler=DefaultSampler):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (0, processes))
        dataset = Subset(range(100), range(num))
        loader = DataLoader(dataset, batch, sampler=sampler(dataset, seed=0), drop_last=True)
        check_has_batch(loader, 'train_dataloader', processes)

    check(24, 12, 2)
    with pytest.raises(ValueError, match=r'has 24 samples, which make no batch of 13 x 2 processes .* to 12 or less'):
        check(24, 13, 2)
    check(3, 1, 8)  # every process gets one of the three
    with pytest.raises(ValueError, match=r'has 3 samples, which make no batch of 2 x 8 processes .* to 1 or less'):
        check(3, 2, 8)
    check(3, 2, 8, EpochInfiniteSampler)


class Endless:
    """Somebody's own order of batches, without a length."""

    def __iter__(self):
        return iter([[0, 1]])


class Short(Endless):
    batch_size, sampler = 4, Endless()

    def __len__(self):
        return 0


@pytest.mark.parametrize('batches', [[[0, 1], [2]], [], Endless(), Short()])
def test_batches_of_somebody_elses_making_are_not_judged(batches):
    check_has_batch(DataLoader(range(3), batch_sampler=batches), 'train_dataloader', 1)


def test_workers_are_turned_off_by_one_setting(small_world, tmp_path):
    """The ImageNet configs keep workers alive and let them read ahead, which torch refuses without workers."""
    cfg = load_leaf(PRETRAIN)
    asked = {key: cfg.train_dataloader[key] for key in ('num_workers', 'persistent_workers', 'prefetch_factor')}
    assert asked == dict(num_workers=8, persistent_workers=True, prefetch_factor=4)
    cfg = small_world.shrink(cfg, 64)
    cfg.train_dataloader.update(asked, num_workers=0)
    runner = train_quickly(cfg, tmp_path)
    loader = runner.train_dataloader
    assert (loader.num_workers, loader.persistent_workers, loader.prefetch_factor) == (0, False, None) and runner.iter == 1
    assert cfg.train_dataloader.prefetch_factor == 4, 'the config stays as it is'


@pytest.mark.parametrize('path', [PRETRAIN, LINEAR, GENERATE])
def test_every_loader_of_imagenet_with_workers_reads_ahead(path):
    loaders = [load_leaf(path).get(f'{name}_dataloader') for name in ('train', 'val', 'test')]
    with_workers = [loader for loader in loaders if loader is not None and loader.num_workers]
    assert with_workers and all(
        loader.prefetch_factor == 4 and loader.persistent_workers and loader.pin_memory for loader in with_workers
    )
