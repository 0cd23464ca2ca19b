"""Centred kernel alignment: its formula, what it does not change under, and the features that it compares."""

import math

import numpy as np
import pytest
import torch
from helpers.trained_files import load, trained
from mmengine.config import Config

from usp_mm.analysis import cka
from usp_mm.analysis.cka import (
    CKASettings,
    all_features,
    check_generator,
    check_same_latents,
    cka_matrix,
    compare_blocks,
    frozen,
    linear_cka,
    open_held_out,
)
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.functional import random
from usp_mm.vaes import build_codec


def normal(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def with_kernels(x, y):
    """HSIC by the kernel matrices: tr(KHLH), as in equation 3."""
    num = len(x)
    h = torch.eye(num).double() - 1 / num
    k, el = x.double() @ x.double().T, y.double() @ y.double().T
    hsic = [torch.trace(a @ h @ b @ h) / (num - 1) ** 2 for a, b in ((k, el), (k, k), (el, el))]
    return float(hsic[0] / (hsic[1] * hsic[2]).sqrt())


def test_it_is_the_formula_with_kernel_matrices():
    x = normal(40, 7) + 3
    y = torch.cat([x[:, :3] @ normal(3, 5, 1), normal(40, 6, 2)], 1) - 2
    assert linear_cka(x, y) == pytest.approx(with_kernels(x, y), rel=1e-9)
    assert 0.1 < linear_cka(x, y) < 0.9


def test_equal_features_have_one():
    x = normal(50, 8)
    assert linear_cka(x, x) == pytest.approx(1, abs=1e-12)


def test_rotations_scales_and_shifts_do_not_change_it():
    x, y = normal(60, 9), normal(60, 5, 1) + normal(60, 9)[:, :5]
    rotation = torch.linalg.qr(normal(9, 9, 2).double())[0]
    before = linear_cka(x, y)
    assert linear_cka(x.double() @ rotation, y) == pytest.approx(before, rel=1e-9)
    assert linear_cka(-7.5 * x + 4, 0.01 * y) == pytest.approx(before, rel=1e-5)
    assert linear_cka(y, x) == pytest.approx(before, rel=1e-12)
    stretched = x * torch.tensor([5.0] + [1.0] * 8)  # no isotropic scale
    assert abs(linear_cka(stretched, y) - before) > 0.01


@pytest.mark.parametrize(('num', 'd', 'e'), [(200, 100, 100), (400, 20, 80), (3000, 16, 16)])
def test_independent_features_have_what_chance_gives(num, d, e):
    expected = math.sqrt(d * e / ((num + d) * (num + e)))
    found = np.mean([linear_cka(normal(num, d, seed), normal(num, e, 100 + seed)) for seed in range(5)])
    assert found == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize(
    ('x', 'y', 'message'),
    [
        (normal(5, 2), normal(4, 2), 'the same 2 or more rows'),
        (normal(1, 2), normal(1, 2), 'the same 2 or more rows'),
        (normal(5, 2)[0], normal(5, 2), 'expected two matrices'),
        (torch.ones(5, 2), normal(5, 2), 'all alike'),
        (normal(5, 2) * math.nan, normal(5, 2), 'not finite'),
    ],
)
def test_what_has_no_alignment_is_refused(x, y, message):
    with pytest.raises(ValueError, match=message):
        linear_cka(x, y)


def test_a_matrix_has_a_row_for_each_of_the_first():
    first, second = [normal(30, 4, k) for k in range(2)], [normal(30, 6, k) for k in range(5, 8)]
    matrix = cka_matrix(first, second)
    assert matrix.shape == (2, 3) and float(matrix[1, 2]) == pytest.approx(linear_cka(first[1], second[2]), rel=1e-12)


def test_other_samples_keep_what_all_samples_share():
    positions = normal(8, 5) * 3  # of 8 tokens, the same in 20 samples
    first, second = ((positions + normal(160, 5, seed).unflatten(0, (20, 8))).flatten(0, 1) for seed in (1, 2))
    found = compare_blocks([first], [second], 20)
    assert found['other_samples'][0][0] == pytest.approx(found['cka'][0][0], abs=0.02) and found['cka'][0][0] > 0.8
    own = normal(160, 5, 3)
    found = compare_blocks([own], [own], 20)
    assert found['cka'][0][0] == pytest.approx(1) and found['other_samples'][0][0] < 0.1


# ---------------------------------------------------------------------- features of models


@pytest.fixture(scope='module')
def world(tmp_path_factory, tiny_vae_folder, demo_data):
    """Models by kind, and a cache of 20 held-out digits."""
    folder = tmp_path_factory.mktemp('cka')
    codec = build_codec('tiny', path=str(tiny_vae_folder))
    write_cache(str(demo_data / 'imagenet' / 'val'), folder / 'val', codec, CacheSpec(64, flip=False), num_workers=0)
    kinds = ('pretraining', 'generator', 'diffusion')
    models = {kind: load(trained(kind, tiny_vae_folder, folder / f'{kind}.pth'), load_vae=False) for kind in kinds}
    return models, open_held_out(models['generator'], folder / 'val')


def test_features_of_an_encoder_are_its_tokens(world):
    models, data = world
    found = all_features(frozen(models['pretraining']), data, CKASettings(6, 'tokens', 4))
    latents = torch.stack([data.dataset[i * 20 // 6]['inputs'] for i in range(6)])
    tokens = models['pretraining'].encode(_mode(models['pretraining'], latents), layer=[1, 2], pool=None)
    for one, expected in zip(found, tokens, strict=True):
        torch.testing.assert_close(one, expected[:, 1:].flatten(0, 1), atol=1e-5, rtol=1e-4)
    pooled = all_features(frozen(models['pretraining']), data, CKASettings(6, 'mean', 4))
    torch.testing.assert_close(pooled[0], found[0].unflatten(0, (6, 16)).mean(1))


def _mode(model, moments):
    return model.model.data_preprocessor(dict(inputs=moments), training=False)['inputs']


@pytest.mark.parametrize(('kind', 't', 'other'), [('generator', 0.4, 0.5), ('diffusion', 300, 301)])
def test_noise_depends_on_the_sample_and_not_on_the_batch(world, kind, t, other):
    models, data = world
    one = all_features(frozen(models[kind], t, seed=3), data, CKASettings(20, 'tokens', 7))
    same = all_features(frozen(models[kind], t, seed=3), data, CKASettings(20, 'tokens', 20))
    for a, b in zip(one, same, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    fewer = all_features(frozen(models[kind], t, seed=3), data, CKASettings(10, 'tokens', 10))
    torch.testing.assert_close(fewer[1].unflatten(0, (10, 16)), one[1].unflatten(0, (20, 16))[::2], atol=1e-5, rtol=1e-4)
    for changed in (dict(t=t, seed=4), dict(t=other, seed=3)):
        assert not torch.allclose(all_features(frozen(models[kind], **changed), data, CKASettings(20))[0], one[0], atol=1e-3)


def test_a_generator_gets_the_interpolated_latents(world):
    models, data = world
    model = frozen(models['generator'], 0.25, seed=9)
    found = all_features(model, data, CKASettings(20, 'tokens', 20))[0]
    latents = _mode(models['generator'], torch.stack([data.dataset[i]['inputs'] for i in range(20)]))
    index = torch.arange(20)
    noise = random.normal(index, torch.ones_like(index), (4, 8, 8), seed=9, stream='latent_noise')  # 1: not of the training
    network = model.network
    with torch.no_grad():
        x_t = 0.25 * latents + 0.75 * noise
        _, hidden = network(x_t, torch.full((20,), 0.25), torch.full((20,), network.null_label), return_hidden=[1])
    torch.testing.assert_close(found, hidden[1].flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_what_cannot_be_compared_is_refused(world, monkeypatch, tmp_path, tiny_vae_folder):
    models, data = world
    with pytest.raises(ValueError, match=r't=1.5 is out of range: a SiT takes times from 0'):
        frozen(models['generator'], 1.5)
    with pytest.raises(ValueError, match=r'Encoder\(USP .* is no generator: give encoders as --against'):
        check_generator(models['pretraining'])
    for wrong in (dict(pool='cls'), dict(num=1), dict(batch_size=0)):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))}='):
            CKASettings(**wrong)
    monkeypatch.setattr(cka, 'LARGEST', 1e-6)
    with pytest.raises(ValueError, match=r'features of 20 samples take 0.0 GiB, more than 1e-06: take fewer'):
        all_features(frozen(models['generator']), data, CKASettings(20))
    monkeypatch.undo()

    check_same_latents({kind: models[kind] for kind in ('generator', 'diffusion', 'pretraining')}, data)
    content = torch.load(tmp_path_of(models['pretraining']), weights_only=False)
    content['meta']['vae']['weight_hash'] = 'f' * 16
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r"'theirs' was trained with VAE 'tiny' \(weights ffff"):
        check_same_latents({'ours': models['generator'], 'theirs': load(tmp_path / 'other.pth', load_vae=False)}, data)


def test_generators_of_other_sizes_are_refused(world, tmp_path):
    models, data = world
    content = torch.load(tmp_path_of(models['generator']), weights_only=False)
    cfg = Config.fromstring(content['meta']['cfg'], '.py')
    cfg.model.denoiser.img_size = 128
    content['meta']['cfg'] = cfg.pretty_text
    state = content['state_dict']
    for name in [name for name in state if name.endswith('pos_embed')]:
        state[name] = torch.zeros(1, 64, 32)
    torch.save(content, tmp_path / 'large.pth')
    with pytest.raises(ValueError, match="'large' is for images of 128 pixels, the others of 64"):
        check_same_latents({'small': models['generator'], 'large': load(tmp_path / 'large.pth', load_vae=False)}, data)


def tmp_path_of(model):
    return model.source.file
