"""Likelihoods over a data set: what they depend on, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from helpers.small_world import ARCH, load_leaf, run_tool

from usp_mm.analysis.likelihood import LikelihoodSettings, measure_likelihood
from usp_mm.apis import load_generator
from usp_mm.models import ODESampler
from usp_mm.probing.data import open_data
from usp_mm.registry import MODELS

CONFIG = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'


def small_config(path, vae, num_classes=2):
    cfg = load_leaf(path)
    cfg.model.data_preprocessor.vae.path = str(vae)
    cfg.model.denoiser.update(arch=dict(ARCH), img_size=64, num_classes=num_classes)
    return cfg


@pytest.fixture(scope='module')
def trained(small_world, tmp_path_factory):
    """Config and checkpoint of an untrained SiT whose output is not 0, and the data of its two classes."""
    cfg = small_config(CONFIG, small_world.tiny_vae_folder)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.1)
    checkpoint = tmp_path_factory.mktemp('trained') / 'iter_1.pth'
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return cfg, checkpoint, open_data(cfg, small_world.images / 'val', training=False)


def measure(trained, sampler=None, **settings):
    cfg, checkpoint, data = trained
    model = load_generator(cfg, checkpoint, device='cpu').model
    return measure_likelihood(model, data, sampler or ODESampler('rk4', 5), LikelihoodSettings(**settings))


def test_a_value_depends_on_seed_and_sample_alone(trained):
    whole, single = measure(trained, batch_size=4), measure(trained, batch_size=1)
    assert whole['indices'] == [0, 1, 2, 3] and whole['num'] == 4 and whole['dims'] == 4 * 8 * 8
    assert single['bits'] == pytest.approx(whole['bits'], abs=1e-5)
    assert measure(trained, num=2)['bits'] == pytest.approx([whole['bits'][0], whole['bits'][2]], abs=1e-5)
    assert whole['mean'] == pytest.approx(sum(whole['bits']) / 4)
    assert measure(trained, seed=1)['bits'] != whole['bits']


def test_adaptive_and_fixed_steps_agree_and_probes_are_averaged(trained):
    fixed, adaptive = measure(trained, ODESampler('rk4', 40)), measure(trained, ODESampler('dopri5', rtol=1e-5))
    assert adaptive['bits'] == pytest.approx(fixed['bits'], abs=1e-3)
    one, two, many = (measure(trained, probes=probes)['bits'] for probes in (1, 2, 16))
    assert one != two and two == pytest.approx(many, abs=1.0)


def test_what_has_no_likelihood_is_refused(trained, small_world):
    data = trained[2]
    with pytest.raises(ValueError, match='probes=0 must be 1 or more'):
        LikelihoodSettings(probes=0)
    few = MODELS.build(small_config(CONFIG, small_world.tiny_vae_folder, num_classes=1).model).eval()
    with pytest.raises(ValueError, match='the data have a class 1, the generator 1 classes'):
        measure_likelihood(few, data, ODESampler('euler', 2), LikelihoodSettings())
    diffusion = MODELS.build(small_config('configs/dit/dit-tiny-p2_1xb64-2k_digits.py', small_world.tiny_vae_folder).model)
    with pytest.raises(ValueError, match='needs a flow, this generator was trained with DDPMObjective'):
        measure_likelihood(diffusion, data, ODESampler('euler', 2), LikelihoodSettings())


@pytest.mark.slow
def test_the_tool_prints_and_writes_what_the_function_returns(trained, small_world, tmp_path):
    cfg, checkpoint, _ = trained
    cfg.dump(tmp_path / 'small.py')
    command = [
        'tools/likelihood.py',
        tmp_path / 'small.py',
        checkpoint,
        '--data',
        small_world.images / 'val',
        '--method',
        'rk4',
    ]
    done = run_tool(*command, '--steps', 5, '--out', tmp_path / 'bits.json')
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(tmp_path / 'bits.json').read_text())
    assert found['bits'] == pytest.approx(measure(trained)['bits'], abs=1e-5)
    assert f'{found["mean"]:.4f}' in done.stdout and '4 latents of 256 numbers' in done.stdout
    wrong = run_tool(*command[:-1], 'rk5')
    assert wrong.returncode == 1 and "unknown ODE method 'rk5'" in wrong.stderr
