"""Files of conversions: who may read them, disks that are full, wrappers, sets that have no place."""

import resource

import pytest
import torch
from helpers.checkpoint_files import build, equal, official

from usp_mm.checkpoints import convert


@pytest.fixture
def vit(tmp_path):
    """A file of an encoder."""
    torch.save(official('timm'), tmp_path / 'vit.pth')
    return tmp_path / 'vit.pth'


def test_others_can_read_what_was_written(vit, tmp_path):
    (tmp_path / 'any').touch()
    for name in ('ours.pth', 'ours.safetensors'):
        convert(vit, tmp_path / name)
        assert (tmp_path / name).stat().st_mode == (tmp_path / 'any').stat().st_mode


@pytest.mark.parametrize('name', ['ours.pth', 'ours.safetensors'])
def test_a_quota_is_one_error_and_leaves_nothing(name, vit, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"ours\.\w+' can't be written, is the disk or your quota full\?"):
            convert(vit, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ['vit.pth']


@pytest.mark.parametrize('wrapper', ['module._orig_mod.', '_orig_mod.module.'])
def test_wrappers_in_any_order(wrapper, tmp_path):
    weights = official('timm')
    torch.save({wrapper + name: value for name, value in weights.items()}, tmp_path / 'wrapped.pth')
    report = convert(tmp_path / 'wrapped.pth', tmp_path / 'ours.pth')
    assert report.written['backbone.cls_token'] == (f'{wrapper}cls_token',) and not report.dropped


@pytest.mark.parametrize('key', ['ema', 'state_dict_ema', 'model_ema'])
def test_our_weights_under_the_name_of_an_average(key, tmp_path):
    weights = build('timm').state_dict()
    torch.save({key: weights}, tmp_path / 'ema.pth')
    convert(tmp_path / 'ema.pth', tmp_path / 'ours.pth')
    assert equal(torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict'], weights)


def test_two_sets_are_no_checkpoint_of_ours(tmp_path):
    weights = build('timm').state_dict()
    torch.save(dict(model=weights, ema=weights), tmp_path / 'two.pth')
    with pytest.raises(ValueError, match='the weights of a checkpoint of this package stand alone, not under model and ema'):
        convert(tmp_path / 'two.pth', tmp_path / 'ours.pth')


def test_an_average_with_its_count(tmp_path):
    """What AveragedModel of torch saves."""
    average = {f'module.{name}': value for name, value in official('timm').items()} | {'n_averaged': torch.tensor(7)}
    torch.save(average, tmp_path / 'average.pth')
    report = convert(tmp_path / 'average.pth', tmp_path / 'ours.pth')
    assert report.dropped == {'n_averaged': 'the count of updates of an average'} and len(report.written) == len(average) - 1


def test_class_names_need_a_pickle(tmp_path):
    ours = {f'denoiser.{name}': value for name, value in official('dit').items()}
    torch.save(dict(state_dict=ours, meta=dict(dataset_meta=dict(classes=['a', 'b']))), tmp_path / 'ours.pth')
    report = convert(tmp_path / 'ours.pth', tmp_path / 'ours.safetensors')
    assert 'a safetensors file holds no class names: write a .pth to keep them' in report.notes
    convert(tmp_path / 'ours.pth', tmp_path / 'again.pth')
    assert torch.load(tmp_path / 'again.pth', weights_only=True)['meta'] == dict(dataset_meta=dict(classes=['a', 'b']))
