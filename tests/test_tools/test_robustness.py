"""tools/robustness.py and tools/test.py under noise, as a user runs them."""

import json

import pytest
from helpers.small_world import run_tool, train_quickly
from mmengine.config import Config
from PIL import Image

from usp_mm.analysis.noise import add_image_noise, add_latent_noise, evaluate_under_noise

CONFIG = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
CACHED = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'


@pytest.mark.slow
def test_the_tool_writes_accuracy_by_level(classifier, tmp_path):
    levels = ['--severities', 1, 5, '--timesteps', 200]
    done = run_tool('tools/robustness.py', *classifier, *levels, '--out', tmp_path / 'a', '--work-dir', tmp_path / 'w')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'a' / 'robustness.json').read_text())
    assert (found['config'], found['checkpoint']) == tuple(map(str, classifier))
    assert [(row['severity'], row['std']) for row in found['image']] == [(1, 0.08), (5, 0.38)]
    assert [row['timestep'] for row in found['latent']] == [200]
    assert Image.open(tmp_path / 'a' / 'robustness.png').format == 'PNG'
    assert sorted(p.name for p in (tmp_path / 'a').iterdir()) == ['robustness.json', 'robustness.png']

    for name, options, expected in [
        ('clean', [], found['clean']),
        ('noisy', ['--image-noise', 5], found['image'][1]),
    ]:
        out = tmp_path / f'{name}.json'
        tested = run_tool('tools/test.py', *classifier, '--out', out, '--work-dir', tmp_path / name, *options)
        assert tested.returncode == 0, tested.stderr
        metrics = json.loads(out.read_text())
        assert metrics == {key: expected[key] for key in metrics}


def test_image_noise_on_cached_latents_is_refused():
    with pytest.raises(ValueError, match=r'LatentCacheDataset.*ImageFolder'):
        add_image_noise(Config.fromfile(CACHED), 1)


def test_levels_that_there_are_not():
    cfg = Config.fromfile(CONFIG)
    with pytest.raises(ValueError, match='severity 6: use 1 to 5'):
        add_image_noise(cfg, 6)
    with pytest.raises(ValueError, match=r'noise of 1001 of 1000 steps: use 0 \(clean\) to 1000'):
        add_latent_noise(cfg, 1001)
    with pytest.raises(ValueError, match="got 'USP'"):
        add_latent_noise(Config.fromfile('configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'), 3)


def test_where_the_noise_goes():
    cfg = Config.fromfile(CONFIG)
    add_image_noise(cfg, 2)
    add_latent_noise(cfg, 300)
    assert [step['type'] for step in cfg.test_dataloader.dataset.pipeline][-2:] == ['GaussianNoise', 'PackInputs']
    assert cfg.test_dataloader.dataset.pipeline[-2].to_uint8
    assert [step['type'] for step in cfg.val_dataloader.dataset.pipeline][-2:] == ['CenterCrop', 'PackInputs']
    assert cfg.model.data_preprocessor.noise == dict(timestep=300)


def test_every_level_reaches_the_backbone_and_goes_again(small_world, tmp_path):
    runner = train_quickly(small_world.shrink(Config.fromfile(CONFIG)), tmp_path)
    seen = []
    runner.model.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    for level in (dict(), dict(severity=1), dict(severity=5), dict(timestep=200), dict(timestep=200), dict()):
        evaluate_under_noise(runner, **level)
    clean, mild, strong, latent, again, last = seen
    assert 0 < (mild - clean).std() < (strong - clean).std()
    assert (latent - clean).std() > 0.1
    assert latent.equal(again)
    assert last.equal(clean)
