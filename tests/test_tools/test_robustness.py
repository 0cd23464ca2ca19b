"""tools/robustness.py and the noise options of test.py."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from mmpretrain.registry import TRANSFORMS
from PIL import Image
from small_world import ROOT, run_tool, train_quickly

from usp_mm.datasets import EpochIndex
from usp_mm.engine.robustness import add_image_noise, add_latent_noise

FINETUNE = 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'
CACHED = 'configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py'


def test_noise_of_an_image_depends_on_seed_and_index():
    grey = np.full((64, 64, 3), 127, np.uint8)

    def noisy(index, **kwargs):
        return TRANSFORMS.build(dict(type='GaussianNoise', **kwargs))(dict(img=grey, sample_idx=index))['img']

    first = noisy(3, std=0.12)
    assert ((first.astype(float) - 127) / 255).std() == pytest.approx(0.12, rel=0.02)
    np.testing.assert_array_equal(first, noisy(EpochIndex(3, 7, 5), std=0.12))
    assert (first != noisy(4, std=0.12)).mean() > 0.9 and (first != noisy(3, std=0.12, seed=1)).mean() > 0.9
    np.testing.assert_array_equal(noisy(3, std=0), grey)
    assert {0, 255} <= set(noisy(3, std=0.38).flatten())  # clipped


def test_what_cannot_be_is_refused():
    cached = Config.fromfile(ROOT / CACHED)
    with pytest.raises(ValueError, match='the config tests on cached latents'):
        add_image_noise(cached, 0.1)
    with pytest.raises(ValueError, match='timestep 1000 of the latent noise must be from 0 to 999'):
        add_latent_noise(cached, 1000)
    with pytest.raises(ValueError, match='the config has a USP'):
        add_latent_noise(Config.fromfile(ROOT / 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'), 5)
    with pytest.raises(ValueError, match='std=-1 must not be negative'):
        TRANSFORMS.build(dict(type='GaussianNoise', std=-1))


@pytest.mark.slow
def test_a_classifier_under_noise(small_world, tmp_path):
    cfg = small_world.shrink(Config.fromfile(ROOT / FINETUNE))
    train_quickly(cfg, tmp_path / 'run')
    cfg.dump(tmp_path / 'config.py')
    command = [tmp_path / 'config.py', tmp_path / 'run' / 'epoch_1.pth', '--work-dir', tmp_path / 'tests']
    levels = ['--stds', 0.1, 0.3, '--timesteps', 100]
    done = run_tool('tools/robustness.py', *command, '--out', tmp_path / 'out', *levels)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'out' / 'robustness.json').read_text())['levels']
    assert [(row['noise'], row['level']) for row in found] == [('clean', 0), ('image', 0.1), ('image', 0.3), ('latent', 100)]
    assert Image.open(tmp_path / 'out' / 'robustness.png').width > 1000
    for options, row in (([], found[0]), (['--image-noise', 0.3], found[2]), (['--latent-noise', 100], found[3])):
        done = run_tool('tools/test.py', *command, *options, '--out', tmp_path / 'metrics.json')
        assert done.returncode == 0, done.stderr
        assert json.loads((tmp_path / 'metrics.json').read_text())['accuracy/top1'] == row['top1']
