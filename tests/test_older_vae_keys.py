"""One form of the VAE's settings, `vae`, and the older keys `vae_path`, `vae_dtype`, `vae_stats` and `codec`."""

import warnings

import pytest
import torch
from helpers.small_world import ROOT, SmallWorld
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

import usp_mm.models  # noqa: F401
from usp_mm.engine.checks.config import merge_cfg_options
from usp_mm.engine.starting.loading import load_config
from usp_mm.models.data_preprocessor import LatentDataPreprocessor
from usp_mm.models.usp_vit import USPViT

KL16 = 'configs/usp/usp_vit-base_kl-f16d16_64xb64-amp-coslr-800e_in1k.py'
SEGMENT = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'
DIGITS = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
ARCH = dict(embed_dims=32, depth=2, num_heads=2)


def merged(cfg: Config, options: dict) -> tuple[Config, list[str]]:
    """The config with options, and the older names of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        merge_cfg_options(cfg, options)
    return cfg, [str(one.message).split(' is now')[0] for one in caught if one.category is FutureWarning]


def of_preprocessor(options: dict, path: str = KL16) -> tuple[dict, list[str]]:
    options = {f'model.data_preprocessor.{key}': value for key, value in options.items()}
    cfg, told = merged(Config.fromfile(ROOT / path), options)
    assert not {'vae_path', 'vae_dtype', 'vae_stats'} & cfg.model.data_preprocessor.keys()
    return cfg.model.data_preprocessor.vae.to_dict(), told


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'vae.path': 'DIR'}, dict(name='kl-f16d16', path='DIR')),
        ({'vae.dtype': 'bfloat16'}, dict(name='kl-f16d16', path='pretrained/kl16.ckpt', dtype='bfloat16')),
        ({'vae': 'kl-f16d16'}, dict(name='kl-f16d16', path='pretrained/kl16.ckpt')),
        ({'vae': 'tiny'}, dict(name='tiny')),  # the file was of another VAE
        ({'vae': 'tiny', 'vae.path': 'DIR'}, dict(name='tiny', path='DIR')),
    ],
)
def test_options_set_parts_or_the_name(options, expected):
    assert of_preprocessor(options) == (expected, [])


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'vae_path': 'DIR'}, dict(name='kl-f16d16', path='DIR')),
        ({'vae': 'tiny', 'vae_path': 'DIR'}, dict(name='tiny', path='DIR')),
        ({'vae': 'tiny', 'vae_dtype': 'float16', 'vae_stats': 'S'}, dict(name='tiny', dtype='float16', stats='S')),
        ({'encode_batch_size': 4}, dict(name='kl-f16d16', path='pretrained/kl16.ckpt', encode_batch_size=4)),
    ],
)
def test_older_options_on_a_config_in_the_current_form(options, expected):
    vae, told = of_preprocessor(options)
    assert vae == expected and told == [f'data_preprocessor.{key}' for key in options if key != 'vae']


def test_a_config_file_in_the_older_form(tmp_path):
    older = tmp_path / 'older.py'
    preprocessor = "dict(_delete_=True, type='LatentDataPreprocessor', vae='tiny', vae_path='A', vae_dtype='float16')"
    older.write_text(f"_base_ = '{ROOT / DIGITS}'\nmodel = dict(data_preprocessor={preprocessor})\n")
    with pytest.warns(FutureWarning, match='data_preprocessor.vae_path is now data_preprocessor.vae.path'):
        cfg = load_config(older, {'model.data_preprocessor.vae.path': 'B'})
    assert cfg.model.data_preprocessor.vae == dict(name='tiny', path='B', dtype='float16')
    older.write_text(f"_base_ = '{ROOT / DIGITS}'\nmodel = dict(data_preprocessor=dict(vae_path='A'))\n")
    with pytest.warns(FutureWarning, match='data_preprocessor.vae_path'):
        cfg = load_config(older)
    assert cfg.model.data_preprocessor.vae == dict(name='tiny', path='A')
    assert 'vae_path' not in cfg.model.data_preprocessor and 'vae_path' not in cfg.pretty_text  # what the run saves


def test_the_backbone_that_encodes():
    for options, told in (({'vae.path': 'DIR'}, []), ({'codec.path': 'DIR'}, ['backbone.codec'])):
        cfg, found = merged(Config.fromfile(ROOT / SEGMENT), {f'model.backbone.{key}': value for key, value in options.items()})
        assert cfg.model.backbone.vae == dict(name='sd-f8d4', path='DIR') and cfg.model.backbone.encode_images
        assert 'codec' not in cfg.model.backbone and found == told
    older = Config(dict(model=dict(backbone=dict(type='USPViT', vae='tiny', codec=dict(path='A', dtype='float16')))))
    cfg, found = merged(older, {'model.backbone.codec.path': 'B'})
    assert cfg.model.backbone == dict(type='USPViT', vae=dict(name='tiny', path='B', dtype='float16'), encode_images=True)
    cfg, _ = merged(Config.fromfile(ROOT / SEGMENT), {'model.backbone.codec': None})
    assert cfg.model.backbone.encode_images is False


def test_a_teacher_in_a_list_of_parts():
    backbone = dict(type='USPViT', vae='tiny', codec=dict(path='A'))
    cfg, told = merged(Config(dict(model=dict(parts=[dict(teacher=dict(backbone=backbone, encode_batch_size=2))]))), {})
    (part,) = cfg.model.parts
    assert part.teacher.backbone.vae == dict(name='tiny', path='A') and part.teacher.encode_batch_size == 2
    assert told == ['backbone.codec']


def test_constructors(small_world: SmallWorld):
    folder = str(small_world.tiny_vae_folder)
    with pytest.warns(FutureWarning, match='vae_path'):
        older = LatentDataPreprocessor('tiny', vae_path=folder, vae_dtype='bfloat16', encode_batch_size=3)
    assert (older.codec.name, older.codec.dtype, older.codec.encode_batch_size) == ('tiny', torch.bfloat16, 3)
    now = LatentDataPreprocessor(dict(name='tiny', path=folder, dtype='bfloat16', encode_batch_size=3))
    assert now.codec.weight_hash == older.codec.weight_hash
    with pytest.warns(FutureWarning, match='backbone.codec'):
        inside = USPViT(ARCH, 'tiny', 64, codec=dict(path=folder))
    assert inside.codec.weight_hash == now.codec.weight_hash
    assert USPViT(ARCH, dict(name='tiny', path=folder), 64).codec is None  # latents come from the data preprocessor
    with pytest.raises(ValueError, match=r"unknown VAE key 'pth'.*did you mean 'path'"):
        LatentDataPreprocessor(dict(name='tiny', pth=folder))


def test_a_model_with_an_older_preprocessor_is_built(small_world: SmallWorld):
    cfg = ConfigDict(
        type='USP',
        backbone=dict(type='USPViT', arch=ARCH, img_size=64),
        data_preprocessor=dict(vae='tiny', vae_path=str(small_world.tiny_vae_folder)),
    )
    before = cfg.to_dict()
    with pytest.warns(FutureWarning, match='vae_path'):
        model = MODELS.build(cfg)
    assert model.data_preprocessor.codec.name == 'tiny' and cfg.to_dict() == before
