"""The demo's configs resumed with other settings: the rates are those of an uninterrupted run with these."""

import json
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import ROOT, load_leaf, run_launcher, run_tool, train_quickly
from mmengine.config import Config

from usp_mm.datasets.samplers import _order

USP = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
PROBE = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
SIT = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'


@pytest.fixture(scope='module')
def cache(demo_data, tiny_vae_folder, tmp_path_factory):
    """Cached latents of 40 digits."""
    folder = tmp_path_factory.mktemp('digits') / 'cache'
    options = ['--vae', 'tiny', '--vae-path', tiny_vae_folder, '--img-size', 64, '--workers', 0]
    done = run_tool('tools/cache_latents.py', 'write', demo_data / 'imagenet' / 'train', folder, *options)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def digits(small_world, cache):
    """Options of the demo's pretraining on 40 digits: 8 epochs of 5 iterations."""

    def options(batch=8, epochs=8):
        return {
            'model.data_preprocessor.vae.path': str(small_world.tiny_vae_folder),
            'train_dataloader.dataset.data_root': str(cache),
            'train_dataloader.batch_size': batch,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.0.end': 2,
            'param_scheduler.1.begin': 2,
            'default_hooks.logger.interval': 1,
            'default_hooks.checkpoint.interval': 4,
            'default_hooks.checkpoint.max_keep_ckpts': -1,
            'default_hooks.restoration.interval': 100,
        }

    return options


def train(options, work_dir, **kwargs):
    cfg = load_leaf(ROOT / USP)
    cfg.merge_from_dict(options)
    cfg.update(kwargs)
    return train_quickly(cfg, work_dir)


def rates(work_dir):
    """Learning rate of each iteration that the folder's last run has logged, and its length."""
    path = max(work_dir.glob('*/vis_data/scalars.json'), key=lambda path: path.stat().st_mtime_ns)
    return {record['step']: record['lr'] for record in map(json.loads, path.read_text().splitlines()) if 'loss' in record}


def difference(resumed, whole, start):
    """Largest difference of two curves from an iteration on; both have each."""
    assert resumed.keys() == {step for step in whole if step > start}
    return max(abs(rate - whole[step]) for step, rate in resumed.items())


@pytest.mark.slow
def test_epochs_resumed_with_half_the_batch_and_with_twice_the_epochs(digits, tmp_path):
    train(digits(), tmp_path / 'first')
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'epoch_4.pth'))
    first = rates(tmp_path / 'first')

    train(digits(batch=4), tmp_path / 'half', **start)
    train(digits(batch=4), tmp_path / 'half-whole')
    half = rates(tmp_path / 'half')
    assert difference(half, rates(tmp_path / 'half-whole'), start=40) == 0.0
    # at the same progress the run of whole batches has the same rate, up to one iteration's change
    step = max(abs(first[i + 1] - first[i]) for i in range(10, 40))
    assert max(abs(half[2 * i] - first[i]) for i in range(21, 41)) < step
    assert len(half) == 40

    train(digits(epochs=16), tmp_path / 'twice', **start)
    train(digits(epochs=16), tmp_path / 'twice-whole')
    assert difference(rates(tmp_path / 'twice'), rates(tmp_path / 'twice-whole'), start=20) == 0.0
    assert len(rates(tmp_path / 'twice')) == 60


@pytest.mark.slow
def test_epochs_resumed_with_two_processes(digits, tmp_path):
    """Twice the samples an iteration: an epoch of 2 iterations instead of 5."""
    train(digits(), tmp_path / 'first')
    train(digits(batch=16), tmp_path / 'whole')
    options = [f'{key}={value}' for key, value in digits().items()]
    command = ['tools/dist_train.sh', USP, 2, '--work-dir', tmp_path / 'first', '--resume', tmp_path / 'first' / 'epoch_4.pth']
    done = run_launcher(*command, '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    whole = rates(tmp_path / 'whole')
    assert len(whole) == 8 * 2
    assert difference(rates(tmp_path / 'first'), whole, start=4 * 2) == 0.0
    log = max((tmp_path / 'first').glob('*/*.log')).read_text()
    assert 'resume: world_size (processes) 1 -> 2' in log and 'resume: iters_per_epoch (iterations an epoch) 5 -> 2' in log


@pytest.mark.slow
def test_a_scaled_rate_is_that_of_the_resumed_run(digits, tmp_path):
    train(digits(), tmp_path / 'first')
    options = [f'{key}={value}' for key, value in digits().items()]
    command = ['tools/train.py', USP, '--work-dir', tmp_path / 'first', '--resume', tmp_path / 'first' / 'epoch_4.pth']
    done = run_tool(*command, '--auto-scale-lr', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    scaled = 1e-3 * 8 / 64
    train(digits() | {'optim_wrapper.optimizer.lr': scaled}, tmp_path / 'whole')
    assert difference(rates(tmp_path / 'first'), rates(tmp_path / 'whole'), start=20) == 0.0
    assert f'resume: lr 0.001 -> {scaled}' in max((tmp_path / 'first').glob('*/*.log')).read_text()


@pytest.mark.slow
def test_an_empty_folder_starts_from_load_from(digits, tmp_path):
    train(digits(epochs=3), tmp_path / 'first')
    options = [f'{key}={value}' for key, value in digits(epochs=3).items()]
    weights = tmp_path / 'first' / 'epoch_3.pth'
    command = [
        'tools/train.py',
        USP,
        '--work-dir',
        tmp_path / 'run',
        '--resume',
        '--cfg-options',
        *options,
        f'load_from={weights}',
    ]
    done = run_tool(*command, 'optim_wrapper.optimizer.lr=0.0')
    assert done.returncode == 0, done.stderr
    before, after = (torch.load(path, weights_only=True)['state_dict'] for path in (weights, tmp_path / 'run' / 'epoch_3.pth'))
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    assert f'--resume: no checkpoint in {tmp_path}/run, the run starts from load_from={weights}' in log


@pytest.mark.slow
def test_iterations_resumed_with_half_the_batch(small_world, tmp_path):
    def generator(batch, iterations, name, **kwargs):
        cfg = shrink_generation(small_world, Config.fromfile(ROOT / SIT))
        cfg.train_cfg.update(max_iters=iterations, val_interval=1000)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.train_dataloader.batch_size = batch
        cfg.default_hooks.checkpoint.interval = 4
        cfg.default_hooks.visualization.interval = 1000
        cfg.param_scheduler = [
            dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
            dict(type='PolyLR', eta_min=0.0, by_epoch=False, begin=3),
        ]
        cfg.update(kwargs)
        train_quickly(cfg, tmp_path / name)

    generator(4, 12, 'first')
    start = dict(resume=True, load_from=str(tmp_path / 'first' / 'iter_8.pth'))
    for batch, iterations in ((2, 24), (4, 24)):
        generator(batch, iterations, f'resumed{batch}', **start)
        generator(batch, iterations, f'whole{batch}')
        found, expected = rates(tmp_path / f'resumed{batch}'), rates(tmp_path / f'whole{batch}')
        assert difference(found, expected, start=8 * 4 // batch) == 0.0


#: Processes, batch of each, and after how many iterations the stage is asked to end.
ELASTIC = ((1, 8, 2), (2, 4, 3), (4, 3, 2), (1, 7, None))


def elastic(cfg, folder, options):
    """Train in `ELASTIC` stages; the (epoch, sample) of each stage in the order in which they were trained on."""
    cfg.dump(folder / 'config.py')
    stages = json.dumps([[*stage, options(stage[0] * stage[1])] for stage in ELASTIC])
    script = Path(__file__).with_name('elastic_share.py')
    env = {**os.environ, 'PYTHONPATH': f'{ROOT}:{ROOT / "tests"}', 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, script, folder / 'config.py', folder / 'run', stages]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    codes = json.loads((folder / 'run' / 'codes.json').read_text())
    assert codes == [[75], [75, 75], [75] * 4, [0]], done.stderr
    seen = []
    for number, (processes, _, _) in enumerate(ELASTIC):
        ranks = [json.loads((folder / 'run' / 'seen' / f'{number}-{rank}.json').read_text()) for rank in range(processes)]
        steps = zip(*ranks, strict=True)  # rank r has every so many-th sample
        seen.append([tuple(key) for step in steps for key in chain(*zip(*step, strict=True))])
    return seen


@pytest.mark.slow
@pytest.mark.parametrize('path', [USP, PROBE])
def test_other_numbers_of_processes_see_each_sample_once(path, small_world, digits, tmp_path):
    """1, 2, 4 and 1 processes and other batches, in epochs: the order of an undisturbed run, without the rest of an epoch."""
    cfg = small_world.shrink(load_leaf(ROOT / path))
    options = digits(epochs=3)
    left_out = ('param_scheduler',) if path == USP else ('param_scheduler', 'default_hooks.restoration')
    cfg.merge_from_dict({key: value for key, value in options.items() if not key.startswith(left_out)})
    if path == PROBE:
        cfg.model.head.num_classes = 10
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = cfg.test_cfg = cfg.test_dataloader = cfg.test_evaluator = None
    seen = elastic(cfg, tmp_path, lambda batch: {})
    assert [len(part) for part in seen[:3]] == [2 * 8, 4 * 8, 3 * 12]  # several end an iteration after the signal
    whole = {epoch: [key[1] for key in chain(*seen) if key[0] == epoch] for epoch in range(3)}
    for epoch, samples in whole.items():
        order = [int(i) for i in _order(40, 0, epoch, shuffle=True)]
        assert samples == order[: len(samples)] and 40 - len(samples) < 12
    assert len(whole[2]) == 40


@pytest.mark.slow
def test_a_loop_over_iterations_on_other_numbers_of_processes(small_world, cache, tmp_path):
    """SiT, whose processes share the optimizer's state: the samples of an undisturbed run in their order."""
    cfg = shrink_generation(small_world, Config.fromfile(ROOT / SIT))
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.merge_from_dict(
        {
            'model.denoiser.num_classes': 10,
            'train_dataloader.dataset.data_root': str(cache),
            'train_cfg.val_interval': 1000,
            'default_hooks.checkpoint.interval': 1000,
            'default_hooks.visualization.interval': 1000,
            'optim_wrapper.optimizer.type': 'ZeroRedundancyOptimizer',
            'optim_wrapper.optimizer.optimizer_type': 'AdamW',
        }
    )
    seen = elastic(cfg, tmp_path, lambda batch: {'train_cfg.max_iters': 240 // batch})
    assert [len(part) for part in seen[:3]] == [2 * 8, 4 * 8, 3 * 12]
    orders = [[(epoch, int(i)) for i in _order(40, 0, epoch, shuffle=True)] for epoch in range(6)]
    found = list(chain(*seen))
    assert found == list(chain(*orders))[: len(found)] and 240 - len(found) < 12
    assert len(saved := torch.load(tmp_path / 'run' / 'iter_34.pth', weights_only=True)['optimizer']['state']) > 1
    assert all(state['step'] == 2 + 4 + 3 + (34 - 84 // 7) for state in saved.values())
