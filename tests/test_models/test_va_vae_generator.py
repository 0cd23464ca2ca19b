"""A generator on VA-VAE latents: the cache's statistics at both ends, guidance within an interval of shifted times."""

import json

import pytest
import torch
from helpers.vae_files import SMALL_VAVAE, kl_weights, save
from mmpretrain.registry import MODELS

from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec

ARCH = dict(embed_dims=48, depth=1, num_heads=3)


@pytest.fixture(scope='module')
def vavae(tmp_path_factory, small_world):
    """(weights, cache at 32 pixels) of a small autoencoder with 32 channels, which was given no statistics."""
    folder = tmp_path_factory.mktemp('vavae')
    path = save(kl_weights(SMALL_VAVAE), folder / 'vavae.pt')
    write_cache(
        str(small_world.images / 'train'), folder / 'cache', build_codec('va-f16d32', path=path), CacheSpec(32), num_workers=0
    )
    return path, folder / 'cache'


def build(vavae, **kwargs):
    torch.manual_seed(0)
    path, cache = vavae
    model = MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            data_preprocessor=dict(vae=dict(name='va-f16d32', path=str(path), stats=str(cache / 'manifest.json'))),
            denoiser=dict(type='SiT', arch=ARCH, img_size=32, num_classes=10, block='lightning', learn_sigma=False),
            objective=dict(type='FlowObjective', times='logit_normal', cosine_weight=1.0),
            sampler=dict(type='ODESampler', method='euler', num_steps=9, timestep_shift=0.3),
            **kwargs,
        )
    )
    return model.eval()


def test_the_caches_statistics_normalise_latents_and_decoding_undoes_it(vavae, small_world):
    model, manifest = build(vavae), json.loads((vavae[1] / 'manifest.json').read_text())
    mean, std = (torch.tensor(manifest[f'latent_{name}']).float().view(32, 1, 1) for name in ('mean', 'std'))
    cached = MODELS.build(
        dict(
            type='LatentDataPreprocessor',
            vae=dict(name='va-f16d32', stats=str(vavae[1] / 'manifest.json')),
            load_vae=False,
        )
    )
    moments = torch.randn(2, 64, 2, 2, generator=torch.Generator().manual_seed(0))
    latents = cached(dict(inputs=moments))['inputs']
    torch.testing.assert_close(latents, (moments[:, :32] - mean) / std, rtol=1e-5, atol=1e-5)
    codec = model.data_preprocessor.codec
    pixels = torch.cat([codec.network_decode(x[None]) for x in latents * std + mean])
    difference = model.decode(latents).float() - (127.5 * pixels + 128).clamp(0, 255).to(torch.uint8).float()
    assert difference.abs().max() <= 1 and pixels.std() > 1e-3
    other = build(vavae)
    other.data_preprocessor.codec.set_stats([0.0] * 32, [1.0] * 32)
    assert (other.data_preprocessor.codec.decode(latents) - codec.decode(latents)).abs().max() > 1e-3


def test_statistics_are_asked_for(vavae):
    model = MODELS.build(dict(type='LatentDataPreprocessor', vae='va-f16d32', load_vae=False))
    with pytest.raises(ValueError, match=r"(?s)'va-f16d32'.*manifest\.json"):
        model(dict(inputs=torch.zeros(1, 64, 2, 2)))


def test_guidance_starts_at_its_time_on_the_shifted_grid(vavae):
    model = build(vavae, guidance=dict(scale=10.0, interval=(0.125, 1.0)))
    calls = []
    model.denoiser_ema.module.register_forward_pre_hook(
        lambda module, args: calls.append((round(float(args[1][0]), 4), len(args[0])))
    )
    model.sample_latents([0, 1], [3, 4])
    grid = [0.3 * t / (1 - 0.7 * t) for t in torch.linspace(0, 1, 9)[:-1].tolist()]
    assert [t for t, _ in calls] == pytest.approx(grid, abs=1e-4)
    assert [num for _, num in calls] == [4 if t >= 0.125 else 2 for t in grid] and grid[2] < 0.125 < grid[3]
