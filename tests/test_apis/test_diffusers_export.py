"""Generators as pipelines of diffusers: loaded in a process without this package, and equal to it."""

import io
import json
import logging
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, DiTPipeline
from helpers.trained_files import load, trained

from usp_mm.checkpoints.diffusers_sit import pipeline
from usp_mm.models.guidance import Guidance
from usp_mm.models.samplers import ODESampler, ode

LABELS = [3, 7]


@pytest.fixture(scope='module')
def sit(tmp_path_factory, tiny_vae_folder):
    """A SiT with LightningDiT's block, and its pipeline."""
    folder = tmp_path_factory.mktemp('pipeline')
    generator = load(trained('generator', tiny_vae_folder, folder / 'sit.pth'))
    generator.save_pipeline(folder / 'out')
    return generator, folder / 'out'


def latents_of(generator):
    geometry = generator.model.denoiser.geometry
    return torch.randn(
        2, geometry.channels, geometry.latent_size, geometry.latent_size, generator=torch.Generator().manual_seed(1)
    )


def ours(generator, latents, method, steps, scale, shift=1.0):
    """What this package draws from the same noise."""
    model = generator.model
    sampler, guidance = ODESampler(method, steps, timestep_shift=shift), Guidance(scale)
    denoise = guidance.denoise(model.network().eval(), torch.tensor(LABELS), model.objective)
    return sampler.sample(denoise, latents, model.objective, None)


def pipeline_of(folder):
    return DiffusionPipeline.from_pretrained(folder, custom_pipeline=str(folder), trust_remote_code=True)


@pytest.fixture(scope='module')
def pipe(sit):
    """The pipeline of `sit`, as diffusers loads it."""
    return pipeline_of(sit[1])


@pytest.mark.parametrize(
    ('method', 'steps', 'scale'),
    [('euler', 6, 3.5), ('euler', 4, 1.0), ('midpoint', 3, 2.0), ('heun2', 4, 3.5), ('heun3', 3, 2.0), ('rk4', 3, 2.0)],
)
def test_latents_are_those_of_this_package(method, steps, scale, sit, pipe):
    generator, _ = sit
    latents = latents_of(generator)
    found = pipe(LABELS, scale, steps, latents=latents, method=method, output_type='latent').images
    wanted = ours(generator, latents, method, steps, scale)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'change',
    [
        dict(block='plain', norm_affine=True),
        dict(block='plain', norm_affine=False, act='gelu'),
        dict(block=dict(rope=True, qk_norm=True), class_dropout=0.0),
        dict(block=dict(norm='rms', mlp='swiglu'), learn_sigma=False),
    ],
)
def test_every_network_is_written(change, sit, tmp_path):
    from mmpretrain.registry import MODELS

    from usp_mm.apis.diffusers_export import write_pipeline

    generator, _ = sit
    cfg = dict(generator.source.cfg['model'], ema=None, sample_model='model')
    cfg['denoiser'] = {**cfg['denoiser'], 'block': 'plain', **change}
    convention = 'noise_at_1' if change.get('norm_affine') else 'data_at_1'
    cfg['objective'] = dict(type='FlowObjective', time_convention=convention)
    cfg['sampler'] = dict(type='ODESampler', method='euler', num_steps=5, timestep_shift=0.3)
    scale = 2.0 if change.get('class_dropout', 1) else 1.0
    cfg['guidance'] = dict(scale=scale, channels=None, interval=(0.2, 0.9)) if scale != 1 else None
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    with torch.no_grad():
        for value in model.denoiser.parameters():
            if value.requires_grad:
                value += 0.1 * torch.randn_like(value)
    write_pipeline(tmp_path / 'out', model)
    pipe = pipeline_of(tmp_path / 'out')
    latents = latents_of(generator)
    denoise = model.guidance.denoise(model.denoiser, torch.tensor(LABELS), model.objective)
    wanted = model.sampler.sample(denoise, latents, model.objective, None)
    torch.testing.assert_close(pipe(LABELS, latents=latents, output_type='latent').images, wanted, rtol=0, atol=1e-5)


WITHOUT_US = """
import sys, json, numpy as np, torch
for name in ('usp_mm', 'mmengine', 'mmpretrain', 'mmcv', 'mmagic', 'mmseg', 'timm', 'torchvision'):
    sys.modules[name] = None  # as if it were not installed
from diffusers import DiffusionPipeline
folder, latents, out = sys.argv[1:]
pipe = DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
images = pipe(['three', 7], 2.0, 4, latents=torch.from_numpy(np.load(latents)), method='euler').images
np.save(out, np.stack([np.asarray(image) for image in images]))
"""


def test_pictures_without_this_package_or_openmmlab(sit, tmp_path):
    generator, folder = sit
    latents = latents_of(generator)
    np.save(tmp_path / 'latents.npy', latents.numpy())
    words = [sys.executable, '-c', WITHOUT_US, folder, tmp_path / 'latents.npy', tmp_path / 'out.npy']
    done = subprocess.run([*map(str, words)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted = generator.model.decode(ours(generator, latents, 'euler', 4, 2.0)).permute(0, 2, 3, 1).numpy()
    found = np.load(tmp_path / 'out.npy').astype(int)
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= 1 and (found != wanted).mean() < 1e-3


def test_the_folder_holds_code_configs_and_weights(sit):
    _, folder = sit
    files = {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}
    weights = 'diffusion_pytorch_model.safetensors'
    assert files == {
        'model_index.json', 'pipeline.py', 'transformer/config.json', 'transformer/sit.py', f'transformer/{weights}',
        'vae/config.json', f'vae/{weights}',
    }  # fmt: skip
    index = json.loads((folder / 'model_index.json').read_text())
    assert index['_class_name'] == ['pipeline', 'SiTPipeline'] and index['id2label']['3'] == 'three'


@pytest.mark.parametrize(
    ('call', 'told'),
    [
        (dict(class_labels=['eleven']), "class 'eleven' is not one of the 10 classes"),
        (dict(class_labels=[]), 'there is no class in the list: give at least one'),
        (dict(class_labels=[10]), 'class 10 is not one of the 10 classes'),
        (dict(class_labels=[1], method='dopri5'), "method='dopri5' must be one of"),
        (dict(class_labels=[1], num_inference_steps=1), 'num_inference_steps=1 must be at least 2'),
        (dict(class_labels=[1], output_type='jpg'), "output_type='jpg' must be one of"),
        (dict(class_labels=[1], latents=torch.zeros(2, 4, 8, 8)), 'latents are'),
    ],
)
def test_the_pipeline_refuses_in_one_line(call, told, pipe):
    with pytest.raises(ValueError, match=told):
        pipe(**call)


def test_names_become_numbers_as_in_diffusers_own_pipeline(pipe):
    assert (pipe.get_label_ids(['three', 'zero']), pipe.get_label_ids('seven')) == ([3, 0], [7])
    with pytest.raises(ValueError, match="class 'eleven' is not one of the 10 classes"):
        pipe.get_label_ids(['three', 'eleven'])


def test_no_keyword_argument_is_unexpected(sit, tmp_path):
    """Neither when the folder is loaded as the page says, nor from what the pipeline saves again."""
    folder = str(sit[1])
    shown, logger = io.StringIO(), logging.getLogger('diffusers.pipelines.pipeline_utils')
    handler = logging.StreamHandler(shown)
    logger.addHandler(handler)
    try:
        loaded = pipeline_of(folder)
        DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True, wrong=1)
    finally:
        logger.removeHandler(handler)
    assert re.findall(r'Keyword arguments (.*?) are not expected', shown.getvalue()) == ["{'wrong': 1}"]
    assert 'trust_remote_code' not in loaded.config


def test_a_dit_becomes_diffusers_own_pipeline(tmp_path, tiny_vae_folder):
    generator = load(trained('diffusion', tiny_vae_folder, tmp_path / 'dit.pth'))
    generator.save_pipeline(tmp_path / 'out')
    pipe = DiTPipeline.from_pretrained(tmp_path / 'out')
    x, t, y = latents_of(generator), torch.tensor([10, 700]), torch.tensor(LABELS)
    with torch.no_grad():
        found, wanted = pipe.transformer(x, t, y).sample, generator.model.network()(x, t, y)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert pipe.labels['three'] == 3 and pipe.vae is not None


def test_the_folder_has_every_method_on_a_time_grid():
    assert {name: tuple(tableau) for name, tableau in ode.METHODS.items() if tableau is not None} == pipeline.METHODS
