"""From a name or dict to a codec."""

import json
from pathlib import Path

import pytest
import torch

from usp_mm.presets import VAES
from usp_mm.vaes import build_codec
from usp_mm.vaes.build import codec_spec


def test_a_dict_overrides_the_arguments(tiny_vae_folder: Path) -> None:
    codec = build_codec(dict(name='tiny', path=tiny_vae_folder, dtype=torch.float16), dtype='float32', encode_batch_size=3)
    assert (codec.name, codec.dtype, codec.encode_batch_size) == ('tiny', torch.float16, 3)


def test_a_codec_passes() -> None:
    codec = build_codec('pixel')
    assert build_codec(codec) is codec
    with pytest.raises(ValueError, match='is built already'):
        build_codec(codec, path='somewhere')


def test_spec_is_the_presets_row() -> None:
    assert codec_spec('kl-f16d16') == VAES['kl-f16d16']


@pytest.mark.parametrize(
    ('cfg', 'arguments', 'message'),
    [
        ('sd-f8d5', {}, "unknown VAE 'sd-f8d5'.*did you mean 'sd-f8d4'"),
        (dict(name='pixel', dtpye='float32'), {}, "unknown VAE key 'dtpye'.*did you mean 'dtype'"),
        (dict(path='x'), {}, "lacks 'name'"),
        ('pixel', dict(dtype='float61'), "unknown dtype 'float61'.*did you mean 'float16'"),
        ('pixel', dict(encode_batch_size=0), 'encode_batch_size=0 must be at least 1'),
        ('pixel', dict(path='x'), "'pixel' has no weights: remove path='x'"),
        ('sd-f8d4', dict(stats={}), "'sd-f8d4' has the fixed scale 0.18215: remove stats"),
        ('va-f16d32', dict(stats={'latent_mean': [0.0]}), r"no list 'latent_std' \(found \['latent_mean'\]\)"),
    ],
)
def test_bad_arguments(cfg: str | dict, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec(cfg, **arguments)


def test_statistics_from_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / 'manifest.json'
    path.write_text(json.dumps({'vae': 'va-f16d32', 'latent_mean': [2.0] * 32, 'latent_std': [4.0] * 32}))
    codec = build_codec('va-f16d32', stats=path, load_weights=False)
    assert torch.equal(codec.mode(torch.full((1, 64, 1, 1), 10.0)), torch.full((1, 32, 1, 1), 2.0))
    path.write_text('{')
    with pytest.raises(ValueError, match=r'manifest\.json is not JSON'):
        build_codec('va-f16d32', stats=path, load_weights=False)
    with pytest.raises(FileNotFoundError, match=r'none\.json is not a file: expected the manifest\.json of a latent cache'):
        build_codec('va-f16d32', stats=tmp_path / 'none.json', load_weights=False)


def test_a_preset_without_a_noted_shape_is_named(monkeypatch):
    from usp_mm import presets
    from usp_mm.vaes.shapes import blank_codec

    monkeypatch.setitem(presets.VAES, 'new', presets.VAES['sd-f8d4'])
    with pytest.raises(ValueError, match="the shape of VAE 'new' is not noted: add it to STRUCTURES"):
        blank_codec('new')
