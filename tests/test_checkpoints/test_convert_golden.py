"""Official checkpoints as files -> converted -> loaded strictly -> the official code's numbers."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.checkpoint_files import PROJECTOR, build, load_strictly, save_official
from helpers.golden import NAMES, golden_weights, load
from helpers.vae_files import GOLDEN_KL16, kl_weights, save
from torch import nn

from usp_mm.checkpoints import convert
from usp_mm.vaes import build_codec


def close(found, expected):
    np.testing.assert_allclose(found.detach(), expected, rtol=0, atol=1e-5)


def inputs(golden):
    return [torch.from_numpy(golden[name]) for name in ('x', 't', 'y')]


@pytest.mark.parametrize(
    ('kind', 'file', 'key'),
    [('usp-dit', 'dit_forward', 'out'), ('dit', 'dit_forward', 'out_without_affine'), ('usp-sit', 'sit_forward', 'out')],
)
def test_generators(kind, file, key, tmp_path):
    save_official(kind, tmp_path / 'official.pt')
    report = convert(tmp_path / 'official.pt', tmp_path / 'ours.pth')
    assert report.kind == kind
    model, golden = load_strictly(build(kind), tmp_path / 'ours.pth'), load(file)
    with torch.no_grad():
        close(model.denoiser(*inputs(golden)), golden[key])
        average = model.denoiser_ema.module(*inputs(golden))
    assert float((average - torch.from_numpy(golden[key])).abs().max()) > 0.1  # the file's average has other weights
    assert torch.equal(model.denoiser_ema.module.x_embedder.proj.bias * 2, model.denoiser.x_embedder.proj.bias)


def test_repa_with_its_projector(tmp_path):
    save_official('repa', tmp_path / 'official.pt')
    report = convert(tmp_path / 'official.pt', tmp_path / 'ours.pth')
    assert any("model.objective.time_convention='noise_at_1'" in note for note in report.notes)
    model = build('repa')
    model.repa = nn.Module()
    widths = [PROJECTOR['0.weight'][1], *(PROJECTOR[f'{i}.weight'][0] for i in (0, 2, 4))]
    layers = [nn.Linear(a, b) for a, b in pairwise(widths)]
    model.repa.projector = nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])
    load_strictly(model, tmp_path / 'ours.pth')
    assert model.denoiser_ema.steps == 400
    golden = load('repa')
    with torch.no_grad():
        out, hidden = model.denoiser(*inputs(golden), return_hidden=[1])
        close(out, golden['out'])
        close(model.repa.projector(hidden[1]), golden['projected'])


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_pretraining_starts_a_generator(ending, tmp_path):
    save_official('usp-pretrain', tmp_path / 'official.pth')
    path = tmp_path / f'ours{ending}'
    convert(tmp_path / 'official.pth', path)
    golden = load('transfer_mae_to_dit')
    init_cfg = dict(type='USPPretrained', checkpoint=str(path))
    model = build('dit', norm_affine=True, img_size=96, init_cfg=init_cfg)
    model.init_weights()
    left = golden_weights({name: NAMES['usp-dit'][name] for name in golden['missing_all'].tolist()})
    close(model.denoiser.pos_embed, golden['pos_embed'])
    model.denoiser.load_state_dict(left, strict=False)
    with torch.no_grad():
        close(model.denoiser(*inputs(golden)), golden['out_all'])


@pytest.mark.parametrize('target', ['usp_mm', 'official', 'safetensors'])
def test_kl16(target, tmp_path):
    source, out = tmp_path / 'kl16.ckpt', tmp_path / ('out.safetensors' if target == 'safetensors' else 'out.pth')
    save(dict(model=kl_weights(GOLDEN_KL16) | {'loss.logvar': torch.zeros(())}, epoch=1), source)
    report = convert(source, out, target)
    assert report.kind == 'kl16'
    assert report.dropped == {
        'epoch': 'a part of training, no weights of the network',
        'loss.logvar': "of the VAE's training",
    }
    golden, codec = load('vae_kl16'), build_codec('kl-f16d16', path=out)
    close(codec.encode(torch.from_numpy(golden['image'])), golden['moments'])
    close(codec.decode(torch.from_numpy(golden['latent'])), golden['decoded'])
