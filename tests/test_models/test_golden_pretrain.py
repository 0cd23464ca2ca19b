"""Pretraining against the official code: encoder, mask, prediction, loss, gradients (float32)."""

import numpy as np
import pytest
import torch
from helpers.golden import load, official_weights
from mmpretrain.registry import MODELS

from usp_mm.checkpoints import from_official
from usp_mm.functional.masking import mask_from_noise
from usp_mm.functional.patchify import unpatchify

ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=32, decoder_depth=2, decoder_heads=4)
CASES = {
    'pretrain_sdvae_c4s8_normpix': ('sd-f8d4', 64, 'patch'),
    'pretrain_sdvae_c4s8_rawtarget': ('sd-f8d4', 64, None),
    'pretrain_sdvae_c4s8_normimage': ('sd-f8d4', 64, 'image'),
    'pretrain_kl16_c16s16_normpix': ('kl-f16d16', 96, 'patch'),
}


def close(ours, theirs, tolerance=1e-5):
    np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=0, atol=tolerance)


@pytest.fixture(params=CASES)
def case(request):
    vae, img_size, norm_pix = CASES[request.param]
    model = MODELS.build(
        dict(
            type='USP',
            data_preprocessor=dict(type='LatentDataPreprocessor', vae=vae, load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=img_size),
            head=dict(type='USPHead', norm_pix=norm_pix),
        )
    )
    golden = load(request.param)
    kind = 'usp-pretrain-kl16' if vae == 'kl-f16d16' else 'usp-pretrain'
    model.load_state_dict(from_official(official_weights(kind)), strict=True)
    return model, golden


@pytest.mark.parametrize('name', CASES)
def test_position_tables_equal_the_recorded_ones(name):
    vae, img_size, _ = CASES[name]
    shape = dict(arch=ARCH, vae=vae, img_size=img_size)
    golden = load(name)
    close(MODELS.build(dict(type='USPViT', **shape)).pos_embed, golden['pos_embed'])
    close(MODELS.build(dict(type='USPDecoder', **shape)).decoder_pos_embed, golden['decoder_pos_embed'])


def test_forward_loss_and_gradients(case):
    model, golden = case
    x = torch.from_numpy(golden['x'])
    mask = mask_from_noise(torch.from_numpy(golden['noise']), 0.75)
    np.testing.assert_array_equal(mask.mask, golden['mask'])
    np.testing.assert_array_equal(mask.restore, golden['ids_restore'])

    close(model.backbone.forward_visible(x, mask.keep), golden['latent'])
    pred = model.predict_patches(x, mask)
    close(pred, golden['pred'])
    close(unpatchify(pred, model.head.patch_size, model.backbone.geometry.grid), golden['unpatchified'])

    loss = model.head.loss(pred, x, mask.mask)
    close(loss, golden['loss'])
    close(model.head.loss(pred, torch.from_numpy(golden['target']), mask.mask), golden['loss_other_target'])

    loss.backward()
    backbone, neck = model.backbone, model.neck
    close(backbone.patch_embed.proj.weight.grad, golden['grad_patch'])
    close(backbone.blocks[0].attn.qkv.weight.grad, golden['grad_qkv0'])
    close(backbone.cls_token.grad, golden['grad_cls'])
    close(neck.mask_token.grad, golden['grad_mask_token'])


def test_weights_that_tell_the_activations_apart():
    """With weights of 0.1 the generators' approximation of GELU gives other numbers than the encoder's exact one."""
    golden, backbone = load('strong_mae'), dict(type='USPViT', arch=ARCH, img_size=64)
    model = MODELS.build(
        dict(type='USP', data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False), backbone=backbone)
    )
    model.load_state_dict(from_official(official_weights('usp-pretrain', 0.1)), strict=True)
    x, mask = torch.from_numpy(golden['x']), mask_from_noise(torch.from_numpy(golden['noise']), 0.75)

    def run():
        with torch.no_grad():
            pred = model.predict_patches(x, mask)
            return model.backbone.forward_visible(x, mask.keep), pred, model.head.loss(pred, x, mask.mask)

    for found, name in zip(run(), ('latent', 'pred', 'loss'), strict=True):
        close(found, golden[name])
    for block in (*model.backbone.blocks, *model.neck.decoder_blocks):
        block.mlp.act = torch.nn.GELU(approximate='tanh')
    latent, pred, _ = run()
    for found, name in ((latent, 'latent'), (pred, 'pred')):
        assert np.abs(found.numpy() - golden[name]).max() > 5e-5
