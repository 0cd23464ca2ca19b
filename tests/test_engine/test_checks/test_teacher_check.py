"""What GeneratorCheckHook refuses of a teacher (REPA) before the first step."""

from types import SimpleNamespace

import pytest
from helpers.small_world import ROOT
from helpers.teacher_files import DIM, MODEL, teacher_folder
from mmengine.config import Config
from mmpretrain.registry import MODELS

from usp_mm.datasets import LatentCacheDataset
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.engine import GeneratorCheckHook, GeneratorEMAHook
from usp_mm.engine.checks.config import check_config
from usp_mm.models.repa import build_teacher
from usp_mm.vaes import build_codec


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(teacher_folder(tmp_path_factory.mktemp('teacher') / MODEL))


@pytest.fixture(scope='module')
def cache(tmp_path_factory, demo_data, tiny_vae_folder, weights):
    out = tmp_path_factory.mktemp('cache')
    codec, teacher = build_codec('tiny', path=tiny_vae_folder), build_teacher(dict(name=MODEL, path=weights), 64)
    write_cache(str(demo_data / 'imagenet' / 'val'), out, codec, CacheSpec(64), num_workers=0, teacher=teacher)
    return str(out)


@pytest.fixture
def check(tiny_vae_folder, weights):
    """Runs the hook on a generator with this `repa` and this training set, and returns the generator."""

    def check(dataset, enabled=True, **repa):
        model = MODELS.build(
            dict(
                type='LatentDiffusionGenerator',
                denoiser=dict(type='SiT', arch=dict(embed_dims=32, depth=1, num_heads=2), img_size=64, num_classes=10),
                objective=dict(type='FlowObjective'),
                sampler=dict(type='SDESampler'),
                data_preprocessor=dict(vae=dict(name='tiny', path=str(tiny_vae_folder))),
                repa=dict(dict(teacher=dict(name=MODEL, path=weights), depth=1, hidden_dims=8), **repa) if enabled else None,
            )
        )
        loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset))
        GeneratorCheckHook().before_train(
            SimpleNamespace(model=model, hooks=[GeneratorEMAHook()], train_loop=loop, val_loop=None)
        )
        return model

    return check


def test_images_load_the_teacher_and_cached_tokens_need_none(check, cache, demo_data):
    images = SimpleNamespace(metainfo={})
    assert check(images).repa.teacher.loaded
    beside = LatentCacheDataset(cache, images=str(demo_data / 'imagenet' / 'val'))
    assert check(beside).repa.teacher.loaded
    repeated = SimpleNamespace(dataset=LatentCacheDataset(cache, teacher=MODEL))
    assert not check(repeated, teacher=dict(name=MODEL, path='not there')).repa.teacher.loaded


def test_missing_weights_and_wrong_shapes(check, tmp_path, weights):
    images = SimpleNamespace(metainfo={})
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth is not a file'):
        check(images, teacher=dict(name=MODEL, path='nothing.pth'))
    resnet = dict(name='test_resnet', path=weights)
    with pytest.raises(ValueError, match="holds timm's 'test_vit', the teacher is 'test_resnet'"):
        check(images, teacher=resnet)
    with pytest.raises(ValueError, match=r"teacher 'test_vit' sees 6x6 tokens .images at 96 pixels., the denoiser 4x4"):
        check(images, teacher=dict(name=MODEL, path=weights, size=96))


def test_a_map_whose_grid_only_an_image_tells(check, tmp_path):
    import timm
    import torch

    network = timm.create_model('test_resnet', pretrained=False)
    torch.save(network.state_dict(), tmp_path / 'resnet.pth')
    with pytest.raises(ValueError, match=r"teacher 'test_resnet' sees 2x2 tokens .images at 64 pixels., the denoiser 4x4"):
        check(SimpleNamespace(metainfo={}), teacher=dict(name='test_resnet', path=str(tmp_path / 'resnet.pth')))
    model = check(
        SimpleNamespace(metainfo={}),
        teacher=dict(name='test_resnet', path=str(tmp_path / 'resnet.pth')),
        resize='bilinear',
    )
    assert model.repa.teacher.grid == (2, 2)


def test_latents_alone_and_another_cached_teacher(check, cache):
    with pytest.raises(ValueError, match=rf"set train_dataloader\.dataset\.teacher='{MODEL}' for tokens that were cached"):
        check(LatentCacheDataset(cache))
    tokens = LatentCacheDataset(cache, teacher=MODEL)
    with pytest.raises(ValueError, match=r"tokens of a teacher with name='test_vit', model\.repa\.teacher has 'dinov2-s'"):
        check(tokens, teacher='dinov2-s', resize='bilinear')
    with pytest.raises(ValueError, match=r'tokens of a teacher with size=64, model\.repa\.teacher has 96'):
        check(tokens, teacher=dict(name=MODEL, size=96), resize='bilinear')
    tokens.manifest['teacher']['grid'] = [8, 8]
    with pytest.raises(ValueError, match='sees 8x8 tokens'):
        check(tokens)
    assert tokens.manifest['teacher']['dim'] == DIM


def test_what_nothing_would_use(check, cache, demo_data):
    images = str(demo_data / 'imagenet' / 'val')
    with pytest.raises(ValueError, match=r"has teacher='test_vit' and images: .* set one of the two to None"):
        check(LatentCacheDataset(cache, teacher=MODEL, images=images))
    for beside in (dict(teacher=MODEL), dict(images=images)):
        with pytest.raises(ValueError, match=r'which nothing uses without model\.repa: set its teacher=None and images=None'):
            check(LatentCacheDataset(cache, **beside), enabled=False)
    assert check(LatentCacheDataset(cache), enabled=False).repa is None


def test_misspelt_keys_of_a_config():
    path = ROOT / 'configs/sit/sit-tiny-p2_repa_1xb64-2k_digits.py'
    cfg = Config.fromfile(path)
    check_config(cfg)
    cfg.model.repa.wieght = 1.0
    with pytest.raises(ValueError, match=r"unknown key 'wieght' in model\.repa: .*did you mean 'weight'"):
        check_config(cfg)
    cfg = Config.fromfile(path)
    cfg.model.repa.teacher.backbone.out_tpye = 'featmap'
    with pytest.raises(ValueError, match=r"unknown key 'out_tpye' in model\.repa\.teacher\.backbone: USPViT takes"):
        check_config(cfg)
