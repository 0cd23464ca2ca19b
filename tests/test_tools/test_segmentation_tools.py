"""tools/train.py and test.py on the demo's segmentation config: resume, test-time augmentation, two processes."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers.small_world import ROOT, run_tool

SCENES = 'configs/upernet/upernet_vit-tiny_usp-pre_1xb8-1k_digits-scenes-128x128.py'
AMONG = '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


@pytest.fixture
def options(demo_data, tiny_vae_folder, small_world):
    """Options for two iterations on six scenes, a checkpoint and a validation after each."""
    encoder = small_world.encoder(dict(arch='tiny', img_size=64), 'tiny')
    data = [f'{split}_dataloader.dataset.data_root={demo_data}/ade20k' for split in ('train', 'val', 'test')]
    short = ['train_cfg.max_iters=2', 'train_cfg.val_interval=1', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1']
    often = ['default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=1']
    model = [f'model.backbone.vae.path={tiny_vae_folder}', f'model.backbone.init_cfg.checkpoint={encoder}']
    return [*model, *data, *short, *often, 'train_dataloader.batch_size=2', 'model.test_cfg.stride=(64,64)']


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def scalars(work_dir):
    return [json.loads(line) for path in work_dir.glob('*/vis_data/scalars.json') for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_resumed_as_uninterrupted_and_tested_as_validated(options, tmp_path):
    run = tmp_path / 'run'
    whole = run_tool('tools/train.py', SCENES, '--work-dir', run, '--cfg-options', *options, env=ENV)
    assert whole.returncode == 0, whole.stderr
    log = next(run.glob('*/*.log')).read_text()
    assert 'tensors from' in log and "new: none; left over: ['norm.weight', 'norm.bias']" in log
    expected, validated = weights(run / 'iter_2.pth'), [r['mIoU'] for r in scalars(run) if 'mIoU' in r]

    (run / 'last_checkpoint').write_text(str(run / 'iter_1.pth'))
    resumed = run_tool('tools/train.py', SCENES, '--work-dir', run, '--resume', '--cfg-options', *options, env=ENV)
    assert resumed.returncode == 0, resumed.stderr
    found = weights(run / 'iter_2.pth')
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)

    test = 'tools/test.py', SCENES, run / 'iter_2.pth', '--work-dir', tmp_path / 'test', '--out'
    one = run_tool(*test, tmp_path / 'one.json', '--cfg-options', *options, env=ENV)
    assert one.returncode == 0, one.stderr
    assert json.loads((tmp_path / 'one.json').read_text())['mIoU'] == pytest.approx(validated[-1])


@pytest.mark.slow
def test_on_two_processes_then_with_augmentation(options, tmp_path):
    """BatchNorm's statistics, the same on both processes after the last step and in the checkpoint; then `--tta`."""
    command = [ROOT / 'tests' / 'helpers' / 'train_share.py', SCENES, '--work-dir', tmp_path]
    words = [sys.executable, *AMONG, *command, '--launcher', 'pytorch', '--cfg-options', *options, 'train_cfg.val_interval=2']
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f'buffers_{rank}.pt') for rank in (0, 1))
    means = [name for name in first if name.endswith('running_mean')]
    assert len(means) > 5 and first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert first[means[0]].abs().max() > 0
    saved = weights(tmp_path / 'iter_2.pth')
    assert all(torch.equal(saved[name], first[name]) for name in means)

    view = [f'tta_pipeline.1.transforms.0.{i}.scale_factor={0.5 + i % 2 / 4}' for i in range(6)]
    test = 'tools/test.py', SCENES, tmp_path / 'iter_2.pth', '--work-dir', tmp_path / 'test', '--tta', '--out'
    tested = run_tool(*test, tmp_path / 'tta.json', '--cfg-options', *options, *view, 'test_dataloader.batch_size=1', env=ENV)
    assert tested.returncode == 0, tested.stderr
    assert 0 <= json.loads((tmp_path / 'tta.json').read_text())['mIoU'] <= 100


@pytest.mark.slow
def test_augmentation_needs_its_pipeline(tmp_path):
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    probe = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
    done = run_tool('tools/test.py', probe, checkpoint, '--tta', env=ENV)
    assert done.returncode == 1 and 'error: --tta: the config has no tta_model and tta_pipeline' in done.stderr
