"""tools/train.py on a generator as a user runs it: metrics, grids, EMA, kill and resume, two processes."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.small_world import ROOT, run_launcher, run_tool

CONFIG = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


@pytest.fixture
def options(small_world, demo_data, tiny_vae_folder):
    """Options that train, validate and draw a small SiT on 4 cached digits."""
    return [
        f'model.data_preprocessor.vae.path={tiny_vae_folder}',
        'model.sampler.num_steps=3',
        f'train_dataloader.dataset.data_root={small_world.cache("tiny", 64)}',
        'train_dataloader.batch_size=3',
        'train_dataloader.num_workers=1',
        'optim_wrapper.accumulative_counts=2',
        'val_dataloader.batch_size=4',
        'val_dataloader.dataset.num_samples=6',
        f'val_evaluator.metrics.reference={demo_data}/imagenet/train',
        'val_evaluator.metrics.extractor._delete_=True',
        'val_evaluator.metrics.extractor.type=PixelFeatures',
        'val_evaluator.metrics.extractor.size=4',
        'train_cfg.max_iters=12',
        'train_cfg.val_interval=4',
        'default_hooks.checkpoint.interval=4',
        'default_hooks.logger.interval=1',
        'default_hooks.visualization.interval=6',
        'default_hooks.class_check.allow_unseen_classes=True',  # it draws ten
    ]


def records(work_dir):
    found = []
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        found += map(json.loads, path.read_text().splitlines())
    return found


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_as_an_uninterrupted_one(options, tmp_path):
    whole = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'whole', '--cfg-options', *options)
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, 'tools/train.py', CONFIG, '--work-dir', tmp_path / 'killed', '--cfg-options', *options]
    process = subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / 'killed' / 'iter_8.pth').exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'killed' / 'iter_12.pth').exists()

    resumed = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'killed', '--resume', '--cfg-options', *options)
    assert resumed.returncode == 0, resumed.stderr
    final, other = (torch.load(tmp_path / run / 'iter_12.pth', weights_only=True) for run in ('whole', 'killed'))
    for name, value in final['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    for key, state in final['optimizer']['state'].items():
        assert all(torch.equal(value, other['optimizer']['state'][key][name]) for name, value in state.items())
    assert {name.split('.')[0] for name in final['state_dict']} == {'denoiser', 'denoiser_ema'}
    assert final['state_dict']['denoiser_ema.steps'] == 12 / 2  # one a step of the optimizer
    moved = [n for n in final['state_dict'] if n.startswith('denoiser.') and 'pos_embed' not in n]
    ema = {n: final['state_dict'][n.replace('denoiser.', 'denoiser_ema.module.')] for n in moved}
    assert any(not torch.equal(final['state_dict'][n], ema[n]) for n in moved)

    def curve(run):
        return {r['step']: r['loss'] for r in records(tmp_path / run) if 'loss' in r}

    assert curve('killed') == curve('whole') and list(curve('whole')) == list(range(1, 13))
    scores = [r['Feature/FD'] for r in records(tmp_path / 'whole') if 'Feature/FD' in r]
    assert len(scores) == 3
    last = [r['Feature/FD'] for r in records(tmp_path / 'killed') if 'Feature/FD' in r][-1]
    assert last == scores[-1]
    assert len(list((tmp_path / 'whole').glob('*/vis_data/vis_image/samples_*.png'))) == 2

    options = [option.replace('val_', 'test_', 1) for option in options if option.startswith(('model.', 'val_'))]
    command = ['tools/test.py', CONFIG, tmp_path / 'whole' / 'iter_12.pth', '--work-dir', tmp_path / 'test']
    tested = run_tool(*command, '--out', tmp_path / 'scores.json', '--cfg-options', *options)
    assert tested.returncode == 0, tested.stderr
    assert json.loads((tmp_path / 'scores.json').read_text())['Feature/FD'] == scores[-1]


@pytest.mark.slow
@pytest.mark.parametrize('compiled', [[], ['model.compile=blocks']])
def test_two_processes_train_as_one_with_the_doubled_batch(compiled, options, tmp_path):
    options = [*options, 'train_cfg.max_iters=4', 'model.ema.momentum=0.2']
    one = [*options, 'train_dataloader.batch_size=4']
    two = [*options, 'train_dataloader.batch_size=2']
    done = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'one', '--cfg-options', *one)
    assert done.returncode == 0, done.stderr
    done = run_launcher('tools/dist_train.sh', CONFIG, 2, '--work-dir', tmp_path / 'two', '--cfg-options', *two, *compiled)
    assert done.returncode == 0, done.stderr
    logged = [records(tmp_path / run) for run in ('one', 'two')]
    for a, b in zip(*([r for r in run if 'loss' in r] for run in logged), strict=True):
        assert a['loss'] == pytest.approx(b['loss'], rel=1e-5)
    ends = [weights(tmp_path / run / 'iter_4.pth') for run in ('one', 'two')]
    assert ends[0]['denoiser_ema.steps'] == ends[1]['denoiser_ema.steps'] == 2
    for name, value in ends[0].items():
        if not name.endswith('attn.qkv.bias'):  # the keys' gradient is pure rounding
            torch.testing.assert_close(value, ends[1][name], rtol=0, atol=1e-5)
    fd = [[r['Feature/FD'] for r in run if 'Feature/FD' in r] for run in logged]
    assert len(fd[0]) == 1 and fd[0] == pytest.approx(fd[1], rel=1e-2)
