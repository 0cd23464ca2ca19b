"""tools/evaluate.py --loss: report, processes and refusals."""

import json
import os
import subprocess
import sys

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import ROOT, load_leaf, run_tool

from usp_mm.registry import MODELS

TOOL = 'tools/evaluate.py'
CONFIG = 'configs/{0}/{0}-tiny-p2_denoising-loss_1xb64-2k_digits.py'
KEYS = {
    'config', 'checkpoint', 'data', 'denoising_loss', 'standard_error', 'times', 'per_time', 'num_samples', 'seed', 'weights',
    'objective', 'error', 'left_out',
}  # fmt: skip


@pytest.fixture(scope='module', params=['sit', 'dit'])
def trained(request, small_world, tmp_path_factory):
    """Folder of a config and the checkpoint of an untrained generator whose output is not 0."""
    return make_trained(request.param, small_world, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module')
def sit(small_world, tmp_path_factory):
    return make_trained('sit', small_world, tmp_path_factory.mktemp('sit'))


def make_trained(name, small_world, folder):
    cfg = shrink_generation(small_world, load_leaf(CONFIG.format(name)))
    cfg.dump(folder / 'small.py')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    names = dict(dataset_meta=dict(classes=('0', '1')))
    torch.save(dict(state_dict=model.state_dict(), meta=names), folder / 'iter_1.pth')
    return folder


def words(folder, *more):
    return [TOOL, folder / 'small.py', folder / 'iter_1.pth', '--loss', '--times', 3, *more]


@pytest.fixture
def call(tool_here):
    return lambda *command: tool_here(*command)[1]


def report_of(call, folder, *more):
    printed = call(*words(folder, '--json', folder / 'report.json', *more))
    return printed, json.loads((folder / 'report.json').read_text())


def test_the_report(trained, call, small_world):
    printed, report = report_of(call, trained)
    assert set(report) == KEYS
    assert report['data'] == small_world.cache('tiny', 64, False, split='val')
    assert (report['num_samples'], report['seed'], report['weights']) == (4, 0, 'ema')
    ddpm = trained.name.startswith('dit')
    assert (report['error'], report['left_out']) == (('mse', ['vb']) if ddpm else ('flow', []))
    assert report['times'] == pytest.approx([166, 500, 833] if ddpm else [1 / 6, 1 / 2, 5 / 6])
    assert report['objective']['name'] == ('DDPMObjective' if ddpm else 'FlowObjective')
    assert f'{report["denoising_loss"]:.6f}' in printed and f'{report["per_time"][1]:.6f}' in printed
    assert report_of(call, trained, '--batch-size', 1)[1] == report
    assert report_of(call, trained, '--weights', 'model')[1]['denoising_loss'] != report['denoising_loss']
    other = report_of(call, trained, '--seed', 5, '--num', 2)[1]
    assert (other['seed'], other['num_samples']) == (5, 2) and other['denoising_loss'] != report['denoising_loss']


def test_images_have_the_loss_of_their_cache(sit, call, small_world):
    """The cache is of half precision."""
    cached, images = (report_of(call, sit, *more)[1] for more in ([], ['--data', small_world.images / 'val', '--workers', 0]))
    assert images['denoising_loss'] == pytest.approx(cached['denoising_loss'], rel=1e-3)
    single = report_of(call, sit, '--data', small_world.images / 'val', '--workers', 0, '--batch-size', 1)[1]
    assert single['denoising_loss'] == images['denoising_loss']


@pytest.mark.slow
def test_two_processes_have_the_same_report(sit, call, tmp_path):
    report = report_of(call, sit)[1]
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    command = [*launcher, *words(sit, '--json', tmp_path / 'two.json', '--batch-size', 3)]
    subprocess.run([*map(str, command)], cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, check=True, capture_output=True)
    assert json.loads((tmp_path / 'two.json').read_text()) == report


def test_what_cannot_be_measured_is_refused(sit, call, small_world, tmp_path):
    training, cfg = small_world.cache('tiny', 64, False), sit / 'small.py'
    assert f"'{training}' is what the generator was trained on, so not held out" in call(*words(sit, '--data', training))
    plain = shrink_generation(small_world, load_leaf('configs/sit/sit-tiny-p2_1xb64-2k_digits.py'))
    plain.dump(tmp_path / 'plain.py')
    printed = call(TOOL, tmp_path / 'plain.py', sit / 'iter_1.pth', '--loss')
    assert 'val_dataloader of the config has none: give --data DIR, a cache that' in printed
    pretraining = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
    printed = call(TOOL, pretraining, sit / 'iter_1.pth', '--loss')
    assert '--loss needs the config of a generator' in printed and "model.type 'USP'" in printed
    encoder = small_world.encoder(dict(arch=dict(plain.model.denoiser.arch), img_size=64), 'tiny')
    printed = call(TOOL, cfg, encoder, '--loss')
    assert encoder in printed and 'error: ' in printed
    assert 'num_samples=9, but the held-out data have 4' in call(*words(sit, '--num', 9))
    assert '--times 0 must be 1 or more' in call(TOOL, cfg, sit / 'iter_1.pth', '--loss', '--times', 0)
    assert 'give CONFIG and CHECKPOINT' in call(TOOL, cfg, '--loss')
    many = small_world.digits
    assert f"'{many}' has 10 classes, the generator 2" in call(*words(sit, '--data', many))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['a.npz'], 'the following arguments are required: --ref'),
        (['a.npz', 'b.npz', '--ref', 'c.npz'], 'a second file goes with --loss'),
        (['a.npz', '--ref', 'c.npz', '--seed', '0'], '--seed goes with --loss'),
        (['a.npz', '--ref', 'c.npz', '--cfg-options', 'a=1'], '--cfg-options goes with --loss'),
        (['a.py', 'a.pth', '--loss', '--ref', 'c.npz'], '--ref does not go with --loss'),
        (['a.py', 'a.pth', '--loss', '--features', 'pixel'], '--features does not go with --loss'),
        (['a.py', 'a.pth', '--loss', '--fast'], '--fast does not go with --loss'),
    ],
)
def test_options_of_the_other_kind_of_score(options, message, tool_here):
    code, printed = tool_here(TOOL, *options)
    assert code == 2 and message in printed


def test_a_missing_checkpoint_is_named():
    done = run_tool(TOOL, CONFIG.format('sit'), 'nowhere.pth', '--loss', '--data', 'tests')
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1
