import pytest
import torch
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from usp_mm.checkpoints import from_official, to_official

ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)


def encoder(checkpoint, **kwargs):
    cfg = dict(type='USPViT', arch=ARCH, vae='sd-f8d4', img_size=64, init_cfg=dict(type='USPPretrained', checkpoint=checkpoint))
    model = MODELS.build({**cfg, **kwargs})
    model.init_weights()
    return model


@pytest.fixture
def pretrained(tmp_path):
    model = MODELS.build(
        dict(
            type='USP',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64),
        )
    )
    model.init_weights()
    ours, official, safe = tmp_path / 'ours.pth', tmp_path / 'official.pth', tmp_path / 'ours.safetensors'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), ours)
    torch.save(dict(model=to_official(model.state_dict()), epoch=1), official)
    save_file(model.state_dict(), safe)
    return model, dict(ours=str(ours), official=str(official), safetensors=str(safe))


@pytest.mark.parametrize('kind', ['ours', 'official', 'safetensors'])
def test_the_encoder_and_nothing_else_is_taken(pretrained, kind):
    model, files = pretrained
    loaded = encoder(files[kind]).state_dict()
    assert loaded.keys() == model.backbone.state_dict().keys()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_final_norms_may_differ_and_the_position_table_is_resized(pretrained):
    model, files = pretrained
    loaded = encoder(files['ours'], out_type='avg_featmap', final_norm=False, img_size=96)
    assert loaded.pos_embed.shape == (1, 37, 32)
    assert torch.equal(loaded.pos_embed[:, 0], model.backbone.pos_embed[:, 0])
    assert torch.equal(loaded.blocks[1].mlp.fc2.weight, model.backbone.blocks[1].mlp.fc2.weight)
    assert loaded.fc_norm.weight.tolist() == [1.0] * 32


def test_what_does_not_fit_is_an_error(pretrained, tmp_path):
    _, files = pretrained
    with pytest.raises(ValueError, match=r"(?s)missing \['blocks\.2\.norm1\.weight'.*another arch or VAE\?"):
        encoder(files['ours'], arch={**ARCH, 'depth': 3})
    with pytest.raises(ValueError, match=r'(?s)does not fit the backbone.*patch_embed\.proj\.weight.*\[32, 4, 2, 2\]'):
        encoder(files['ours'], vae='kl-f16d16')
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        encoder(str(tmp_path / 'nothing.pth'))
    with pytest.raises(ValueError, match=r'init_cfg\.checkpoint is unset'):
        encoder(None)
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), tmp_path / 'foreign.pth')
    with pytest.raises(ValueError, match=r"no encoder in the checkpoint.*'weight'"):
        encoder(str(tmp_path / 'foreign.pth'))


def test_official_names_round_trip(pretrained):
    model, _ = pretrained
    official = to_official(model.state_dict())
    assert {'cls_token', 'mask_token', 'decoder_pred.weight', 'blocks.0.attn.qkv.weight'} <= official.keys()
    assert from_official(official).keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match=r"'vae\.encoder' is not a key of an official"):
        from_official({'vae.encoder': torch.zeros(1)})
