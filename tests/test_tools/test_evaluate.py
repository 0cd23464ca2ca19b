import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.small_world import ROOT, run_tool
from mmengine.logging import MMLogger
from PIL import Image

from usp_mm.cli.evaluate import main
from usp_mm.evaluation import PixelFeatures
from usp_mm.functional.metrics import density_coverage, frechet_distance, mean_covariance, precision_recall, vendi_score

FACTS = dict(
    sampler=dict(name='DDIMSampler', num_steps=8), guidance=dict(scale=1.0), label_mode='balanced', seed=5, device='cpu'
)


@pytest.fixture(scope='module')
def digits(demo_data):
    """uint8[N, 64, 64, 3] of the training and of the validation set."""
    split = {}
    for name in ('train', 'val'):
        files = sorted((demo_data / 'imagenet' / name).glob('*/*.png'))
        split[name] = np.stack([np.asarray(Image.open(file).convert('RGB')) for file in files])
    return split


@pytest.fixture(scope='module')
def samples(digits, tmp_path_factory):
    """Digits in place of samples, as tools/sample.py writes them."""
    path = tmp_path_factory.mktemp('samples') / 'samples.npz'
    np.savez(path, digits['train'], np.arange(40) % 10)
    path.with_name('samples.npz.json').write_text(json.dumps(FACTS))
    return path


@pytest.fixture(scope='module')
def expected(digits):
    fake, real = (PixelFeatures()(torch.from_numpy(digits[name]).permute(0, 3, 1, 2)) for name in ('train', 'val'))
    precision, recall = precision_recall(real, fake)
    density, coverage = density_coverage(real, fake)
    scores = dict(precision=precision, recall=recall, density=density, coverage=coverage, vendi=vendi_score(fake))
    scores['FD'] = frechet_distance(*mean_covariance(real), *mean_covariance(fake))
    return {f'Feature/{name}': value for name, value in scores.items()}


def command(samples, demo_data, *extra):
    reference = demo_data / 'imagenet' / 'val'
    return ['tools/evaluate.py', samples, '--ref', reference, '--features', 'pixel', '--workers', 0, *extra]


@pytest.mark.slow
def test_scores_and_report(samples, demo_data, expected, tmp_path):
    cache = {**os.environ, 'USP_CACHE': str(tmp_path / 'cache')}
    done = run_tool(*command(samples, demo_data, '--json', tmp_path / 'report.json'), env=cache)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['metrics'] == pytest.approx(expected, rel=1e-6)
    assert (report['num_samples'], report['steps'], report['label_mode'], report['seed']) == (40, 8, 'balanced', 5)
    assert report['details'] == dict(device='cpu') and report['extractor'] == 'pixels 16x16'
    assert report['reference']['sha256'] in done.stdout
    assert f'{expected["Feature/FD"]:.4f}' in done.stdout
    assert len(list((tmp_path / 'cache' / 'references').iterdir())) == 1

    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    shared = [*launcher, *command(samples, demo_data, '--json', tmp_path / 'two.json', '--batch-size', 7)]
    subprocess.run([*map(str, shared)], cwd=ROOT, env={**cache, 'OMP_NUM_THREADS': '1'}, check=True, capture_output=True)
    two = json.loads((tmp_path / 'two.json').read_text())
    assert two['metrics'] == pytest.approx(report['metrics'], rel=1e-9)
    assert {**two, 'metrics': None} == {**report, 'metrics': None}


@pytest.fixture
def run_main(samples, demo_data, monkeypatch, tmp_path):
    """Call the tool's main() in this process."""
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))

    def run_main(*words, given=samples, reference=demo_data / 'imagenet' / 'val'):
        monkeypatch.setattr(sys, 'argv', [*map(str, ('evaluate.py', given, '--ref', reference, *words))])
        main()

    return run_main


def test_a_folder_of_samples_and_an_extractor_of_a_config(run_main, digits, expected, tmp_path, capsys):
    (tmp_path / 'samples').mkdir()
    for i, image in enumerate(digits['train']):
        Image.fromarray(image).save(tmp_path / 'samples' / f'{i:03}.png')
    (tmp_path / 'pixels.py').write_text("extractor = dict(type='PixelFeatures', size=16)\n")
    options = ['--cache-dir', tmp_path, '--json', tmp_path / 'report.json', '--workers', 0]
    run_main('--extractor', tmp_path / 'pixels.py', *options, given=tmp_path / 'samples')
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['metrics'] == pytest.approx(expected, rel=1e-6)
    assert report['sampler'] is None and 'not recorded' in capsys.readouterr().out


@pytest.fixture
def call(run_main):
    """Call main(); returns its error."""

    def call(*words, **paths):
        with pytest.raises((ValueError, OSError)) as error:
            run_main(*words, **paths)
        return str(error.value)

    return call


def test_more_processes_than_gpus(call, monkeypatch):
    def refuse(number):
        raise ValueError(f'device {number}')

    MMLogger.get_current_instance()  # a new logger would ask which device LOCAL_RANK is
    monkeypatch.setenv('LOCAL_RANK', '5')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setattr('torch.cuda.set_device', refuse)
    assert call('--features', 'pixel') == 'device 1'


def test_bad_input(call, samples, tmp_path):
    pixel = ['--features', 'pixel']
    assert 'weights-inception-2015-12-05-6726825d.pth' in call()
    assert 'torch/hub/checkpoints' in call()
    assert call(*pixel, given=tmp_path / 'no.npz').startswith(f"'{tmp_path}/no.npz' does not exist")
    assert call(*pixel, reference=tmp_path / 'no.npz').startswith(f"'{tmp_path}/no.npz' does not exist")
    np.savez(tmp_path / 'floats.npz', np.zeros((8, 4, 4, 3)))
    assert 'is float64[8, 4, 4, 3]: expected images as uint8' in call(*pixel, given=tmp_path / 'floats.npz')
    np.savez(tmp_path / 'empty.npz', labels=np.zeros(3))
    assert 'neither statistics nor images' in call(reference=tmp_path / 'empty.npz')
    assert call(*pixel, '--num', 41).endswith('holds 40 samples')
    assert call(*pixel, '--num', 3) == 'Feature metrics need at least 6 samples, there are 3'
    assert '--inception goes with --features adm' in call(*pixel, '--inception', 'x.pth')
    assert '--classifier-size goes with --classifier' in call('--classifier-size', 8)
    message = f"folder '{tmp_path}/none' does not exist, create it first"
    assert call(*pixel, '--json', tmp_path / 'none' / 'r.json').endswith(message)
    listed = tmp_path / 'listed.npz'
    listed.write_bytes(samples.read_bytes())
    (tmp_path / 'listed.npz.json').write_text('[]')
    assert call(*pixel, given=listed) == f"'{listed}.json' holds a list, expected values by name: delete it"
    (tmp_path / 'other.py').write_text('features = 1\n')
    assert 'sets no `extractor`' in call('--extractor', tmp_path / 'other.py')
