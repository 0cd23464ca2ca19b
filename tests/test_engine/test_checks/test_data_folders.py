"""Data that are missing are refused from the config alone, before the model is built and its VAE loaded."""

import pytest
from mmengine.config import Config
from PIL import Image

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.folder import ImageFolder
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
    told = 'of val_dataloader does not exist: check data_root and data_prefix of its data set'
    assert str(refused.value) == f"image folder '{where}' {told}"
    where.mkdir(parents=True)
    check_data_folders(Config(dict(val_dataloader=dict(dataset=dataset))), *LOADERS)


@pytest.mark.parametrize(
    'dataset', [dict(data_root='{}', data_prefix='~/pics'), dict(data_root='{}', data_prefix='{}/home/pics')]
)
def test_what_the_data_set_finds_is_found(dataset, tmp_path, monkeypatch):
    """A prefix in the home folder, or an absolute one, is not joined with the root."""
    monkeypatch.setenv('HOME', str(tmp_path / 'home'))
    dataset = dict({key: value.format(tmp_path) for key, value in dataset.items()}, type='ImageFolder')
    cfg = Config(dict(train_dataloader=dict(dataset=dataset)))
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/home/pics'"):
        check_data_folders(cfg, *LOADERS)
    (tmp_path / 'home' / 'pics' / 'a').mkdir(parents=True)
    Image.new('RGB', (8, 8)).save(tmp_path / 'home' / 'pics' / 'a' / '0.png')
    check_data_folders(cfg, *LOADERS)
    assert len(ImageFolder(data_root=dataset['data_root'], data_prefix=dataset['data_prefix'])) == 1


def test_a_folder_elsewhere_is_left_to_its_data_set():
    for dataset in (dict(data_root='s3://pictures'), dict(data_root='data', data_prefix='s3://pictures')):
        check_data_folders(Config(dict(train_dataloader=dict(dataset=dict(dataset, type='ImageFolder')))), *LOADERS)


def test_what_the_run_does_not_read_is_not_looked_for(small_world, tmp_path):
    """A data set of another name, loaders that are off, and those of a test."""
    none = tmp_path / 'none'
    images, test = dict(dataset=cached(none, 'ImageNet')), dict(dataset=cached(none))
    check_data_folders(Config(dict(train_dataloader=images, val_dataloader=None, test_dataloader=test)), *LOADERS)
    check_data_folders(Config(dict(train_dataloader=dict(dataset=cached(small_world.cache('tiny', 64))))), *LOADERS)
