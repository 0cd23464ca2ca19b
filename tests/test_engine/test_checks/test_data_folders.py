"""Data that are missing are refused from the config alone, before the model is built and its VAE loaded."""

import pytest
from mmengine.config import Config

from usp_mm.datasets import LatentCacheDataset
from usp_mm.engine.checks.data_folders import check_data_folders

LOADERS = 'train_dataloader', 'val_dataloader'


def cached(folder, kind='LatentCacheDataset'):
    return dict(type=kind, data_root=str(folder))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('train_dataloader', lambda cache: dict(dataset=cache)),
        ('val_dataloader', lambda cache: dict(dataset=cache)),
        ('val_dataloader', lambda cache: [dict(dataset=cache)]),
        ('train_dataloader', lambda cache: dict(dataset=dict(type='RepeatDataset', times=2, dataset=cache))),
        ('train_dataloader', lambda cache: dict(dataset=dict(type='ConcatDataset', datasets=[dict(type='Images'), cache]))),
    ],
)
@pytest.mark.parametrize('kind', ['LatentCacheDataset', 'mmpretrain.LatentCacheDataset', LatentCacheDataset])
def test_a_missing_cache_is_refused(kind, key, value, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"no latent cache in '{tmp_path}/none': write one with"):
        check_data_folders(Config({key: value(cached(tmp_path / 'none', kind))}), *LOADERS)


def test_an_unfinished_cache_is_refused(tmp_path):
    (tmp_path / 'plan.json').write_text('{}')
    with pytest.raises(FileNotFoundError, match=f"latent cache '{tmp_path}' is incomplete: run the same"):
        check_data_folders(Config(dict(train_dataloader=dict(dataset=cached(tmp_path)))), *LOADERS)


@pytest.mark.parametrize(
    'dataset',
    [
        dict(type='ImageFolder', data_root='{}'),
        dict(type='mmpretrain.ImageFolder', data_root='{}', data_prefix='train'),
        dict(type='ADE20KFolder', data_root='{}', data_prefix=dict(img_path='train', seg_map_path='other')),
    ],
)
def test_a_missing_image_folder_is_refused(dataset, tmp_path):
    dataset = dict(dataset, data_root=str(tmp_path / 'none'))
    where = tmp_path / 'none' / ('train' if 'data_prefix' in dataset else '')
    with pytest.raises(FileNotFoundError) as refused:
        check_data_folders(Config(dict(val_dataloader=dict(dataset=dataset))), *LOADERS)
    assert (
        str(refused.value) == f"image folder '{where}' of val_dataloader does not exist: set val_dataloader.dataset.data_root"
    )
    where.mkdir(parents=True)
    check_data_folders(Config(dict(val_dataloader=dict(dataset=dataset))), *LOADERS)


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    loader = dict(dataset=dict(type='ImageFolder', data_root='~/pictures', data_prefix='train'))
    with pytest.raises(FileNotFoundError, match='~/pictures/train'):
        check_data_folders(Config(dict(train_dataloader=loader)), *LOADERS)
    (tmp_path / 'pictures' / 'train').mkdir(parents=True)
    check_data_folders(Config(dict(train_dataloader=loader)), *LOADERS)


def test_what_the_run_does_not_read_is_not_looked_for(small_world, tmp_path):
    """A data set of another name, loaders that are off, and those of a test."""
    none = tmp_path / 'none'
    images, test = dict(dataset=cached(none, 'ImageNet')), dict(dataset=cached(none))
    check_data_folders(Config(dict(train_dataloader=images, val_dataloader=None, test_dataloader=test)), *LOADERS)
    check_data_folders(Config(dict(train_dataloader=dict(dataset=cached(small_world.cache('tiny', 64))))), *LOADERS)
