"""The VAE's encoder as a part of what is fine-tuned (section 3.3.1), and a frozen encoder as none."""

import numpy as np
import pytest
import torch
from helpers.small_world import ROOT, load_leaf, train_quickly
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.models import USPClassifier, USPViT
from usp_mm.vaes import build_codec

TRAINED = 'configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py'
FROZEN = 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'
PROBE = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


def read_weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)


def test_a_run_changes_every_encoder_tensor_and_saves_it(small_world, tmp_path):
    cfg = small_world.shrink(Config.fromfile(ROOT / TRAINED))
    cfg.custom_hooks = [dict(type='EMAHook', momentum=0.5)]
    cfg.train_dataloader.batch_size = 2
    before = build_codec('tiny', path=small_world.tiny_vae_folder).network.state_dict()
    runner = train_quickly(cfg, tmp_path)
    saved, prefix = read_weights(tmp_path / 'epoch_1.pth'), 'backbone.vae_encoder.'
    trained = {k.removeprefix(prefix): v for k, v in saved['ema_state_dict'].items() if k.startswith(f'module.{prefix}')}
    trained = {k.removeprefix(f'module.{prefix}'): v for k, v in trained.items()}
    expected = {k for k in before if k.startswith(('encoder.', 'quant_conv.'))}
    assert trained.keys() == expected == {k.removeprefix(prefix) for k in saved['state_dict'] if k.startswith(prefix)}
    for name in expected:
        averaged, own = saved['state_dict'][prefix + name], trained[name]
        assert not torch.equal(own, before[name]) and not torch.equal(averaged, own), name
    assert not any('decoder' in name or 'post_quant' in name for name in saved['state_dict'])
    optimized = {id(p) for group in runner.optim_wrapper.optimizer.param_groups for p in group['params']}
    assert optimized >= {id(p) for p in runner.model.backbone.vae_encoder.parameters()}
    groups = {name: group for group in runner.optim_wrapper.optimizer.param_groups for name in group['param_names']}
    found = [(group['lr_scale'], group['weight_decay']) for name, group in groups.items() if 'vae_encoder' in name]
    # official: a group of its own, at the whole rate, all of it decayed
    assert found == [(1.0, 0.05)] * len(expected) and any(before[name].ndim == 1 for name in expected)
    first = groups['backbone.patch_embed.proj.weight'], groups['backbone.patch_embed.proj.bias']
    assert [(group['lr_scale'], group['weight_decay']) for group in first] == [(0.75**3, 0.05), (0.75**3, 0.0)]


def test_features_before_training_are_those_of_the_frozen_vae(small_world):
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    arguments = dict(arch=dict(embed_dims=32, depth=2, num_heads=2), vae=small_world.vae_of('tiny'), img_size=64)
    found = []
    for train_vae in (False, True):
        torch.manual_seed(0)
        model = USPViT(**arguments, encode_images=True, train_vae=train_vae)
        model.init_weights()
        found.append(model.eval()(images)[0])
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)
    assert model.codec.network is None  # with the decoder


@pytest.mark.parametrize('space', ['latent', 'image'])
def test_mixing_is_that_of_the_frozen_vae(small_world, space):
    """Before any training: latents by default, images if asked; mixup, then cutmix, each with its mixed labels."""
    models = []
    for path in (TRAINED, FROZEN):
        cfg = small_world.shrink(load_leaf(path)).model
        cfg.data_preprocessor.mix_space = space
        cfg.backbone.drop_path_rate = 0.0
        models.append(MODELS.build(cfg).train())
    trained, frozen = models
    frozen.init_weights()
    assert {k.split('.')[1] for k in trained.load_state_dict(frozen.state_dict(), strict=False).missing_keys} == {'vae_encoder'}
    images = torch.randint(0, 256, (4, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    losses = []
    for model in models:
        for seed in (0, 1, 2, 3):
            np.random.seed(seed)
            torch.manual_seed(seed)
            samples = [DataSample().set_gt_label(label) for label in (0, 1, 0, 1)]
            data = model.data_preprocessor(dict(inputs=images, data_samples=samples), training=True)
            losses.append(model(**data, mode='loss')['loss'].detach())
            scores = torch.stack([sample.gt_score for sample in data['data_samples']])
            assert scores.sum(1).tolist() == pytest.approx([1.0] * 4) and scores.frac().any()
    torch.testing.assert_close(losses[:4], losses[4:], rtol=0, atol=1e-6)
    assert (trained.mix_latents is None) == (space == 'image') and frozen.mix_latents is None
    # in validation nothing is mixed
    data = trained.eval().data_preprocessor(dict(inputs=images, data_samples=None))
    torch.testing.assert_close(
        trained(**data), frozen.eval()(**frozen.data_preprocessor(dict(inputs=images, data_samples=None))), rtol=0, atol=1e-5
    )


def test_what_does_not_go_together_is_refused(small_world):
    with pytest.raises(ValueError, match='train_vae=True needs encode_images=True, with the VAE to train'):
        USPViT(train_vae=True)
    with pytest.raises(ValueError, match="VAE 'pixel' has no encoder to train"):
        USPViT(vae='pixel', encode_images=True, train_vae=True)
    with pytest.raises(ValueError, match='is trained in float32'):
        USPViT(vae={**small_world.vae_of('tiny'), 'dtype': 'bfloat16'}, encode_images=True, train_vae=True)
    with pytest.raises(ValueError, match=r"data_preprocessor.vae.dtype='bfloat16' is of a frozen VAE"):
        USPClassifier(dict(type='USPViT', train_vae=True), data_preprocessor=dict(vae=dict(name='tiny', dtype='bfloat16')))


def test_a_frozen_encoder_is_bit_identical_after_a_probe(small_world, tmp_path):
    cfg = small_world.shrink(Config.fromfile(ROOT / PROBE))
    before = read_weights(cfg.model.backbone.init_cfg.checkpoint)['state_dict']
    train_quickly(cfg, tmp_path)
    after = read_weights(tmp_path / 'epoch_1.pth')['state_dict']
    assert {name for name in after if name.startswith('backbone.')} == before.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value), name
