"""What inductor makes of the blocks and of the losses has the official code's numbers (float32, CPU)."""

import re

import numpy as np
import pytest
import torch
from helpers.golden import load, official_weights
from mmpretrain.registry import MODELS
from torch._functorch import config as functorch_config
from torch._inductor import config as inductor_config
from torch._inductor.utils import run_and_get_code

from usp_mm.checkpoints import from_official
from usp_mm.functional import random
from usp_mm.layers import ModulatedBlock

pytestmark = pytest.mark.slow
ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=32, decoder_depth=2, decoder_heads=4)
#: Kernels and operators in the code that inductor writes.
LAUNCH = re.compile(r'^\s+(?:\S+ = )?(cpp_fused\w*|extern_kernels\.\w+|torch\.ops\.[\w.]+)\(', re.MULTILINE)
regions = pytest.mark.parametrize('region', ['blocks', 'loss'])


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    limit = torch._dynamo.config.recompile_limit
    torch.compiler.reset()
    yield
    torch._dynamo.config.recompile_limit = limit
    torch.compiler.reset()


def close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=tolerance)


def given(monkeypatch, **draws):
    """Recorded draws in the place of addressable noise, by stream."""
    for name in ('uniform', 'normal'):
        monkeypatch.setattr(random, name, lambda *_, stream, **__: draws[stream])


@regions
def test_pretraining_loss_and_gradients(region, monkeypatch):
    golden = load('pretrain_sdvae_c4s8_normpix')
    cfg = dict(type='USP', backbone=dict(type='USPViT', arch=ARCH, img_size=64), compile=region)
    model = MODELS.build({**cfg, 'data_preprocessor': dict(type='LatentDataPreprocessor', load_vae=False)})
    model.load_state_dict(from_official(official_weights('usp-pretrain')), strict=True)
    given(monkeypatch, mask=torch.from_numpy(golden['noise']))
    loss = model.eval().loss(torch.from_numpy(golden['x']), None)['loss']
    close(loss, golden['loss'])
    loss.backward()
    close(model.backbone.patch_embed.proj.weight.grad, golden['grad_patch'])
    close(model.backbone.blocks[0].attn.qkv.weight.grad, golden['grad_qkv0'])
    close(model.backbone.cls_token.grad, golden['grad_cls'])
    close(model.neck.mask_token.grad, golden['grad_mask_token'])


def generator(kind, objective, sampler, region):
    denoiser = dict(type=kind, arch=dict(embed_dims=48, depth=2, num_heads=3), img_size=64, num_classes=10)
    cfg = dict(type='LatentDiffusionGenerator', denoiser=denoiser, objective=objective, sampler=sampler, compile=region)
    model = MODELS.build({**cfg, 'data_preprocessor': dict(vae='sd-f8d4', load_vae=False)}).eval()
    model.denoiser.load_state_dict(official_weights(f'usp-{kind.lower()}'))
    model._sync_ema()
    return model


@regions
def test_dit_losses(region):
    golden = {key: torch.from_numpy(np.asarray(value)) for key, value in load('dit_losses').items()}
    model = generator('DiT', dict(type='DDPMObjective'), dict(type='AncestralSampler', num_steps=10), region)
    losses = model.compiling.loss(_losses)
    with torch.no_grad():
        found = losses(model, golden['x'], golden['t'], golden['y'], golden['noise'])
    for key in ('mse', 'vb', 'loss'):
        torch.testing.assert_close(found[key], golden[key], rtol=0, atol=1e-5)


def _losses(model, x, t, y, noise):
    return model.objective.losses(lambda x_t, t: model.denoiser(x_t, t, y), x, t, noise)


@pytest.mark.parametrize('method', ['ode_velocity_euler_9', 'ode_velocity_heun2_9'])
def test_sit_sampling(method):
    golden = load('sit_sample')
    sampler = dict(type='ODESampler', method=method.split('_')[2], num_steps=9)
    model = generator('SiT', dict(type='FlowObjective'), sampler, 'blocks')
    z, y = (torch.from_numpy(golden[key]) for key in ('z', 'y'))
    with torch.no_grad():
        found = model.sampler.sample(model.guidance.denoise(model.network(), y, model.objective), z, model.objective, None)
    torch.testing.assert_close(found, torch.from_numpy(golden[method]), rtol=0, atol=1e-4 * float(np.abs(golden[method]).max()))


def test_launches_of_a_compiled_block():
    """In bfloat16; eager, 33 and 59 operations (test_benchmark_gpu.py). Graphs are compiled anew, as kept ones show no code."""
    block = ModulatedBlock(32, 2)
    block.compile()
    x, c = torch.randn(4, 16, 32, requires_grad=True), torch.randn(4, 32, requires_grad=True)

    def step():
        with torch.autocast('cpu', torch.bfloat16):
            out = block(x, c)
        out.float().sum().backward()

    with inductor_config.patch(fx_graph_cache=False), functorch_config.patch(enable_autograd_cache=False):
        _, codes = run_and_get_code(step)
    calls = [LAUNCH.findall(code[code.index('def call(') :]) for code in codes]
    assert [len(names) for names in calls] == [12, 20]
    assert [sum(name.startswith('cpp_fused') for name in names) for names in calls] == [6, 9]
