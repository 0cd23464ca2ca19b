"""An encoder pretrained with LightningDiT's block starts a generator of the same, and no other."""

import re

import pytest
import torch
from mmpretrain.registry import MODELS

from usp_mm.models.weight_transfer import transfer_encoder

ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=16, decoder_depth=1, decoder_heads=2)
PART = r'(norm[12]\.weight|attn\.(qkv|proj)\.(weight|bias)|mlp\.(w12|w3)\.(weight|bias))'


def pretraining(block):
    """Weights of which nothing is as initialised."""
    torch.manual_seed(1)
    model = MODELS.build(
        dict(
            type='USP',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64, block=block),
        )
    )
    model.init_weights()
    return {name: value + torch.rand(value.shape) for name, value in model.state_dict().items()}


def encoder(block):
    return {name.removeprefix('backbone.'): value for name, value in pretraining(block).items() if name.startswith('backbone.')}


def denoiser(block='lightning', type='SiT', **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=type, arch=ARCH, img_size=64, num_classes=10, block=block, **kwargs))
    model.init_weights()
    return model


@pytest.fixture(scope='module')
def weights():
    return encoder('lightning')


def test_everything_of_the_blocks_is_taken(weights):
    model, fresh = denoiser(), denoiser().state_dict()
    report = transfer_encoder(model, weights)
    assert len(report.taken) == 2 * 10 + 3
    assert all(re.fullmatch(rf'x_embedder\.proj\.(weight|bias)|pos_embed|blocks\.[01]\.{PART}', name) for name in report.taken)
    assert report.dropped == ('cls_token', 'norm.weight')
    assert set(report.random) == {name for name in fresh if re.match(r'[ty]_embedder|final_layer|blocks\.\d\.adaLN', name)}
    assert 'final_layer.norm_final.weight' in report.random
    source = {name.replace('patch_embed', 'x_embedder'): value for name, value in weights.items()}
    source['pos_embed'] = source['pos_embed'][:, 1:]
    for name, value in model.state_dict().items():
        assert torch.equal(value, source[name] if name in report.taken else fresh[name]), name


def test_through_the_config_and_into_the_average(tmp_path):
    state = pretraining(dict(preset='lightning', qk_norm=True))
    torch.save(dict(state_dict=state), tmp_path / 'usp.pth')
    model = MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            denoiser=dict(
                type='SiT', arch=ARCH, img_size=64, num_classes=10, block=dict(preset='lightning', qk_norm=True),
                init_cfg=dict(type='USPPretrained', checkpoint=str(tmp_path / 'usp.pth'), keep_layers=1),
            ),
            objective=dict(type='FlowObjective'),
            sampler=dict(type='ODESampler', method='euler', num_steps=3),
        )
    )  # fmt: skip
    model.init_weights()
    key = 'blocks.0.attn.q_norm.weight'
    assert torch.equal(model.denoiser.get_parameter(key), state[f'backbone.{key}'])
    assert torch.equal(model.denoiser_ema.module.get_parameter(key), state[f'backbone.{key}'])
    assert model.denoiser.get_parameter('blocks.1.attn.q_norm.weight').tolist() == [1.0] * 16
    assert not any('rope' in name for name in model.state_dict())
    assert model.sample_latents([0], [1]).shape == (1, 4, 8, 8)


def test_norms_can_be_left_out(weights):
    report = transfer_encoder(denoiser(), weights, load_norms=False)
    assert len(report.taken) == 19 and {'blocks.0.norm1.weight', 'blocks.1.norm2.weight'} <= set(report.dropped)
    assert len(transfer_encoder(denoiser(norm_affine=False), weights).taken) == 19
    mixed = dict(norm='layer', mlp='swiglu', rope=True)
    assert len(transfer_encoder(denoiser(mixed), weights, load_norms=False).taken) == 19


@pytest.mark.parametrize(('theirs', 'ours', 'message'), [
    ('plain', 'lightning', r"blocks with mlp='gelu', norm='layer', the model with mlp='swiglu', norm='rms': give both"),
    ('lightning', 'plain', r"blocks with mlp='swiglu', norm='rms', the model with mlp='gelu', norm='layer'"),
    ('lightning', dict(preset='lightning', qk_norm=True), r'blocks with qk_norm=False, the model with qk_norm=True'),
])  # fmt: skip
def test_another_block_is_an_error(theirs, ours, message, tmp_path):
    model, fresh = denoiser(ours), denoiser(ours).state_dict()
    state = encoder(theirs)
    with pytest.raises(ValueError, match=message):
        transfer_encoder(model, state)
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())
    torch.save(state, tmp_path / 'encoder.pth')
    init = dict(type='USPPretrained', checkpoint=str(tmp_path / 'encoder.pth'))
    backbone = MODELS.build(dict(type='USPViT', arch=ARCH, img_size=64, block=ours, init_cfg=init))
    with pytest.raises(ValueError, match=rf'does not fit the backbone: .*{message}'):
        backbone.init_weights()


def test_an_encoder_loads_an_encoder(tmp_path):
    state = pretraining('lightning')
    torch.save(dict(state_dict=state), tmp_path / 'usp.pth')
    init = dict(type='USPPretrained', checkpoint=str(tmp_path / 'usp.pth'))
    loaded = MODELS.build(dict(type='USPViT', arch=ARCH, img_size=96, block='lightning', out_type='avg_featmap', init_cfg=init))
    loaded.init_weights()
    assert torch.equal(loaded.blocks[1].mlp.w12.weight, state['backbone.blocks.1.mlp.w12.weight'])
    assert loaded.pos_embed.shape == (1, 37, 48) and loaded.fc_norm.weight.tolist() == [1.0] * 48
