"""The KL family against the official numbers, and what files it reads."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.golden import load
from helpers.vae_files import GOLDEN_KL16, SMALL_VAVAE, Bomb, kl_weights, save

from usp_mm.vaes import build_codec
from usp_mm.vaes.kl import KLAutoencoder, KLStructure


def test_names_are_the_official_ones() -> None:
    with torch.device('meta'):
        names = set(KLAutoencoder(GOLDEN_KL16).state_dict())
    quant = {f'{part}.{kind}' for part in ('quant_conv', 'post_quant_conv') for kind in ('weight', 'bias')}
    assert names == set(load('vae_kl16')['keys'].tolist()) | quant


@pytest.mark.parametrize('container', ['plain.ckpt', 'model.pth', 'state_dict.pt', 'plain.safetensors'])
def test_official_numbers(tmp_path: Path, container: str) -> None:
    golden, weights = load('vae_kl16'), kl_weights(GOLDEN_KL16)
    key = container.split('.')[0]
    codec = build_codec('kl-f16d16', path=save(weights if key == 'plain' else {key: weights}, tmp_path / container))
    moments = codec.encode(torch.from_numpy(golden['image']))
    latent = codec.mode(moments)
    close = dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moments, golden['moments'], **close)
    np.testing.assert_allclose(latent, golden['latent'], **close)
    np.testing.assert_allclose(codec.decode(torch.from_numpy(golden['latent'])), golden['decoded'], **close)
    noise = torch.ones(1, 16, 4, 4)
    np.testing.assert_allclose(codec.sample(moments, noise) / 0.2325, golden['mean'] + golden['std'], **close)


@pytest.mark.parametrize(
    'structure',
    [
        KLStructure(128, (128, 128, 256, 256, 512), 2, 16, 16, frozenset({4})),
        KLStructure(64, (64, 128, 128), 1, 8, 4, frozenset({0, 2}), frozenset({2})),
    ],
)
def test_structure_is_read_from_shapes(structure: KLStructure) -> None:
    with torch.device('meta'):
        shapes = {name: tuple(tensor.shape) for name, tensor in KLAutoencoder(structure).state_dict().items()}
    assert KLStructure.infer(shapes) == structure
    assert structure.stride == 2 ** (len(structure.widths) - 1)


def test_vavae_training_checkpoint(tmp_path: Path) -> None:
    weights = kl_weights(SMALL_VAVAE)
    extra = {name: torch.zeros(1) for name in ('loss.logvar', 'foundation_model.model.norm.weight', 'linear_proj.weight')}
    clean = build_codec('va-f16d32', path=save(weights, tmp_path / 'clean.ckpt'))
    full = build_codec('va-f16d32', path=save({'epoch': 3, 'state_dict': weights | extra}, tmp_path / 'full.pt'))
    assert full.weight_hash == clean.weight_hash
    assert len(full.weight_hash) == 16


def test_statistics_make_channels_standard(tmp_path: Path) -> None:
    codec = build_codec('va-f16d32', path=save(kl_weights(SMALL_VAVAE), tmp_path / 'vavae.pt'))
    moments = torch.randn(8, 64, 4, 4) * 3 + 1
    with pytest.raises(ValueError, match=r"(?s)'va-f16d32'.*stats=.*manifest.json.*'latent_mean' and 'latent_std'"):
        codec.mode(moments)
    mean = moments[:, :32]
    codec.set_stats(mean.mean((0, 2, 3)), mean.std((0, 2, 3)))
    latents = codec.mode(moments)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(32), rtol=0, atol=1e-5)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(32), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ('mean', 'std', 'message'),
    [
        ([0.0] * 31, [1.0] * 32, 'latent_mean has 31 numbers.*32 channels'),
        ([0.0] * 32, [1.0] * 31 + [0.0], 'latent_std=.*positive'),
        ([float('nan')] * 32, [1.0] * 32, 'latent_mean=.*finite'),
    ],
)
def test_bad_statistics(mean: list[float], std: list[float], message: str) -> None:
    codec = build_codec('va-f16d32', load_weights=False)
    with pytest.raises(ValueError, match=message):
        codec.set_stats(mean, std)
    assert codec.scale is None


def test_keys_that_do_not_fit_are_listed_once(tmp_path: Path) -> None:
    weights = kl_weights(GOLDEN_KL16)
    del weights['decoder.norm_out.bias']
    weights['decoder.extra'] = torch.zeros(2)
    weights['encoder.conv_out.bias'] = torch.zeros(5)
    with pytest.raises(ValueError, match='does not fit') as error:
        build_codec('kl-f16d16', path=save(weights, tmp_path / 'kl16.ckpt'))
    for part in (
        str(tmp_path / 'kl16.ckpt'),
        '1 missing (decoder.norm_out.bias)',
        '1 unexpected (decoder.extra)',
        '1 of another shape (encoder.conv_out.bias [5] instead of [32])',
    ):
        assert part in str(error.value)


def test_another_channel_count_or_stride_names_both_sides(tmp_path: Path) -> None:
    path = save(kl_weights(GOLDEN_KL16), tmp_path / 'kl16.safetensors')
    with pytest.raises(ValueError, match="latent channels 16, but VAE 'va-f16d32' has 32"):
        build_codec('va-f16d32', path=path)
    coarse = KLStructure(32, (32,) * 4, 1, 16, 16)
    with pytest.raises(ValueError, match="latent stride 8, but VAE 'kl-f16d16' has 16"):
        build_codec('kl-f16d16', path=save(kl_weights(coarse), tmp_path / 'coarse.pt'))


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    target = tmp_path / 'ran'
    for protocol_file in ('zip.ckpt', 'raw.pt'):
        path = tmp_path / protocol_file
        if path.stem == 'zip':
            torch.save({'state_dict': Bomb(target)}, path)
        else:
            path.write_bytes(pickle.dumps(Bomb(target), protocol=2))
        with pytest.raises(ValueError, match='run code to be read, which is refused'):
            build_codec('kl-f16d16', path=path)
        assert not target.exists()


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('weights.bin', b'', r"\.safetensors, \.ckpt, \.pt or \.pth files, not from '\.bin'"),
        ('weights.ckpt', b'no checkpoint', 'is broken'),
        ('weights.safetensors', b'no checkpoint', 'is broken'),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        build_codec('kl-f16d16', path=tmp_path / name)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'epoch': 3}, "no state dict.*'state_dict', 'model'"),
        ({'a.weight': torch.zeros(1)}, "weights .'encoder.conv_in.weight'.* are missing"),
    ],
)
def test_checkpoints_of_something_else(tmp_path: Path, content: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec('kl-f16d16', path=save(content, tmp_path / 'weights.pt'))


def test_missing_weights_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'kl-f16d16' needs a path.*kl16\.ckpt of LTH14/mar"):
        build_codec('kl-f16d16')
    with pytest.raises(FileNotFoundError, match=r'none\.ckpt does not exist.*kl16\.ckpt of LTH14/mar'):
        build_codec('kl-f16d16', path=tmp_path / 'none.ckpt')
