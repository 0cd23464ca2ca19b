"""A latent cache that is missing is refused from the config alone, before the model is built and its VAE loaded."""

import pytest
from mmengine.config import Config

from usp_mm.datasets import LatentCacheDataset
from usp_mm.engine.checks.cache import check_cache_folders

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
        check_cache_folders(Config({key: value(cached(tmp_path / 'none', kind))}), *LOADERS)


def test_an_unfinished_cache_is_refused(tmp_path):
    (tmp_path / 'plan.json').write_text('{}')
    with pytest.raises(FileNotFoundError, match=f"latent cache '{tmp_path}' is incomplete: run the same"):
        check_cache_folders(Config(dict(train_dataloader=dict(dataset=cached(tmp_path)))), *LOADERS)


def test_what_the_run_does_not_read_is_not_looked_for(small_world, tmp_path):
    """Images, a data set of another name, loaders that are off, and those of a test."""
    none = tmp_path / 'none'
    images, test = dict(dataset=cached(none, 'ImageNet')), dict(dataset=cached(none))
    check_cache_folders(Config(dict(train_dataloader=images, val_dataloader=None, test_dataloader=test)), *LOADERS)
    check_cache_folders(Config(dict(train_dataloader=dict(dataset=cached(small_world.cache('tiny', 64))))), *LOADERS)
