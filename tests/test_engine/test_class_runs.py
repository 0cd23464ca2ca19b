"""Runs whose classes don't agree end before their first step."""

import shutil

import mmengine
import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf, train_quickly
from mmengine.runner import Runner

LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py'


def linear(small_world, tmp_path):
    cfg = small_world.shrink(load_leaf(LINEAR), 64)
    cfg.work_dir = str(tmp_path / 'run')
    return cfg


def other_images(small_world, tmp_path, change):
    """A copy of the images with changed class folders of validation."""
    folder = tmp_path / 'other'
    shutil.copytree(small_world.images, folder)
    val = folder / 'val'
    if change == 'missing':
        shutil.rmtree(val / '0')
    elif change == 'extra':
        shutil.copytree(val / '0', val / 'another')
    else:
        (val / '0').rename(val / 'zero')
    return str(folder)


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (
            'missing',
            r"training data '.*train' and validation data '.*val' differ \(2 and 1\): missing '0'; moved '1' \(1 → 0\): give",
        ),
        ('extra', r"differ \(2 and 3\): extra 'another': give all of them the same classes in the same order"),
        ('renamed', r"differ \(2 each\): missing '0'; extra 'zero'; moved '1'"),
    ],
)
def test_validation_data_of_other_classes(small_world, tmp_path, change, told):
    cfg = linear(small_world, tmp_path)
    cfg.val_dataloader.dataset.data_root = other_images(small_world, tmp_path, change)
    with pytest.raises(ValueError, match=told):
        train_quickly(cfg, tmp_path / 'run')
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_a_checkpoint_is_tested_and_resumed_on_its_own_classes_alone(small_world, tmp_path):
    cfg = linear(small_world, tmp_path)
    train_quickly(cfg, tmp_path / 'run')
    checkpoint = tmp_path / 'run' / 'epoch_1.pth'
    noted = torch.load(checkpoint, weights_only=True)['meta']['dataset_meta']['classes']
    assert tuple(noted) == ('0', '1')

    cfg = linear(small_world, tmp_path)
    cfg.load_from, cfg.experiment_name = str(checkpoint), 'tested'
    assert Runner.from_cfg(cfg).test()['accuracy/top1'] >= 0
    cfg.test_dataloader.dataset.data_root = other_images(small_world, tmp_path, 'renamed')
    cfg.experiment_name = 'tested_on_others'
    with pytest.raises(
        ValueError, match=r"the checkpoint and test data '.*val' differ \(2 each\): missing '0'; extra 'zero'; moved '1'"
    ):
        Runner.from_cfg(cfg).test()

    cfg = linear(small_world, tmp_path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.metainfo = dict(classes=['one', 'two'])
    cfg.load_from, cfg.resume = str(checkpoint), True
    with pytest.raises(
        ValueError, match=r"the checkpoint and training data '.*train' differ .*missing '0', '1'; extra 'one', 'two'"
    ):
        train_quickly(cfg, tmp_path / 'resumed')
    cfg.resume = False
    with pytest.raises(ValueError, match='start from its encoder alone, with init_cfg'):
        train_quickly(cfg, tmp_path / 'started')
    cfg.load_from = None
    train_quickly(cfg, tmp_path / 'fresh')
    assert (tmp_path / 'fresh' / 'epoch_1.pth').is_file(), 'init_cfg takes an encoder of any classes'


def test_labels_of_a_list_and_a_test_without_labels(small_world, tmp_path):
    """A list without names of classes trains; unlabelled images give predictions and no accuracy."""
    cfg, images = linear(small_world, tmp_path), small_world.images / 'train'
    lines = [f'{path.relative_to(images)} {path.parent.name}' for path in sorted(images.rglob('*.png'))]
    (tmp_path / 'train.txt').write_text('\n'.join(lines))
    data = cfg.train_dataloader.dataset
    data.ann_file, data.data_root, data.data_prefix = str(tmp_path / 'train.txt'), '', str(images)
    train_quickly(cfg, tmp_path / 'run')
    noted = torch.load(tmp_path / 'run' / 'epoch_1.pth', weights_only=True)['meta']['dataset_meta']
    assert not noted.get('classes')

    cfg = linear(small_world, tmp_path)
    data = cfg.test_dataloader.dataset
    data.data_root, data.data_prefix, data.with_label = str(small_world.images / 'val' / '0'), '', False
    cfg.load_from, cfg.experiment_name = str(tmp_path / 'run' / 'epoch_1.pth'), 'scored'
    with pytest.raises(ValueError, match=r"test data '.*val/0' has no labels, and metric Accuracy needs them"):
        Runner.from_cfg(cfg).test()
    cfg.test_evaluator = dict(type='DumpResults', out_file_path=str(tmp_path / 'predictions.pkl'))
    cfg.experiment_name = 'kept'
    assert Runner.from_cfg(cfg).test() == {}
    kept = mmengine.load(tmp_path / 'predictions.pkl')
    assert len(kept) == len(list((small_world.images / 'val' / '0').iterdir()))
    assert all(one['pred_score'].shape == (2,) for one in kept)


def test_a_generator_with_more_classes_than_its_data(small_world, tmp_path):
    cfg = shrink_generation(small_world, load_leaf(SIT))
    cfg.model.denoiser.num_classes = 10
    told = (
        r"training data '.*train' has 2 classes, model\.denoiser\.num_classes is 10: set model\.denoiser\.num_classes=2, or "
        r'default_hooks\.class_check\.allow_unseen_classes=True to go on without the others'
    )
    with pytest.raises(ValueError, match=told):
        train_quickly(cfg, tmp_path / 'refused')
    cfg.default_hooks.class_check.allow_unseen_classes = True
    train_quickly(cfg, tmp_path / 'asked_for')
    assert (tmp_path / 'asked_for' / 'iter_1.pth').is_file()


def test_caches_of_other_classes(small_world, tmp_path):
    """A cache of the renamed folders as validation data, and one without classes."""
    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.writer import write_cache
    from usp_mm.vaes import build_codec

    codec = build_codec('tiny', path=str(small_world.tiny_vae_folder))
    renamed = other_images(small_world, tmp_path, 'renamed')
    for name, images in (('renamed', f'{renamed}/val'), ('flat', f'{renamed}/val/1')):
        write_cache(images, tmp_path / name, codec, CacheSpec(64, flip=False), num_workers=0)
    cfg = small_world.shrink(load_leaf('configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'))
    assert {cfg.train_dataloader.dataset.type, cfg.val_dataloader.dataset.type} == {'LatentCacheDataset'}
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'renamed')
    with pytest.raises(ValueError, match=r"validation data '.*renamed' differ \(2 each\): missing '0'; extra 'zero'"):
        train_quickly(cfg, tmp_path / 'run')
    cfg.val_dataloader.dataset.data_root = str(tmp_path / 'flat')
    with pytest.raises(ValueError, match=r"validation data '.*flat' has no classes, and USPClassifier needs them"):
        train_quickly(cfg, tmp_path / 'run')
