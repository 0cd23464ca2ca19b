"""Files of conversions: who may read them, disks that are full, wrappers, sets that have no place."""

import resource

import pytest
import torch
from checkpoint_files import official

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


def test_an_average_alone_is_no_checkpoint_of_ours(tmp_path):
    torch.save(dict(ema={'backbone.cls_token': torch.zeros(1, 1, 48)}), tmp_path / 'ema.pth')
    with pytest.raises(ValueError, match='the weights of a checkpoint of this package stand alone, not under ema'):
        convert(tmp_path / 'ema.pth', tmp_path / 'ours.pth')


def test_class_names_need_a_pickle(tmp_path):
    ours = {f'denoiser.{name}': value for name, value in official('dit').items()}
    torch.save(dict(state_dict=ours, meta=dict(dataset_meta=dict(classes=['a', 'b']))), tmp_path / 'ours.pth')
    report = convert(tmp_path / 'ours.pth', tmp_path / 'ours.safetensors')
    assert 'a safetensors file holds no class names: write a .pth to keep them' in report.notes
    convert(tmp_path / 'ours.pth', tmp_path / 'again.pth')
    assert torch.load(tmp_path / 'again.pth', weights_only=True)['meta'] == dict(dataset_meta=dict(classes=['a', 'b']))
