"""save_best of CheckpointHook, looked at before hours of training."""

import pytest
from helpers.small_world import train_quickly
from mmengine.config import Config

PROBE = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


def run(small_world, folder, save_best):
    cfg = small_world.shrink(Config.fromfile(PROBE), img_size=64)
    cfg.default_hooks.checkpoint.save_best = save_best
    return train_quickly(cfg, folder)


def test_a_prefix_that_no_metric_has_is_refused_before_training(small_world, tmp_path):
    with pytest.raises(ValueError, match=r"save_best='accuray/top1': .* give accuracy/…; did you mean 'accuracy'"):
        run(small_world, tmp_path, 'accuray/top1')
    assert not list(tmp_path.glob('*.pth'))


def test_a_score_that_the_validation_did_not_give_is_one_line(small_world, tmp_path):
    with pytest.raises(ValueError, match=r"save_best='accuracy/top5': the validation gave .*; did you mean 'accuracy/top1'"):
        run(small_world, tmp_path, 'accuracy/top5')


@pytest.mark.parametrize('save_best', ['accuracy/top1', 'auto'])
def test_a_score_that_is_there(save_best, small_world, tmp_path):
    run(small_world, tmp_path, save_best)
    assert (tmp_path / 'best_accuracy_top1_epoch_1.pth').is_file()
