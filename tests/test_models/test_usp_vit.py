import pytest
import torch
from mmpretrain.registry import MODELS

from usp_mm.models import USPViT

TINY = dict(embed_dims=32, depth=3, num_heads=2)


def build(**kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='USPViT', arch=TINY, vae='sd-f8d4', img_size=64, **kwargs))
    model.init_weights()
    return model


@pytest.fixture
def latents():
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_output_types_are_views_of_the_same_tokens(latents):
    raw = build(out_type='raw').eval()(latents)[0]
    assert raw.shape == (2, 17, 32)
    torch.testing.assert_close(build(out_type='cls_token').eval()(latents)[0], raw[:, 0])
    featmap = build(out_type='featmap').eval()(latents)[0]
    torch.testing.assert_close(featmap[:, :, 1, 2], raw[:, 1 + 4 + 2])
    averaged = build(out_type='avg_featmap', final_norm=True).eval()
    torch.testing.assert_close(averaged(latents)[0], averaged.fc_norm(raw[:, 1:].mean(1)))
    assert 'norm.weight' not in build(out_type='avg_featmap').state_dict()  # `fc_norm` in its place, as in fine-tuning


def test_out_indices_return_each_block_and_norm_only_the_last(latents):
    model = build(out_type='raw', out_indices=(0, 1, -1)).eval()
    first, second, last = model(latents)
    torch.testing.assert_close(model.blocks[1](first), second)
    torch.testing.assert_close(model.norm(model.blocks[2](second)), last)


def test_visible_tokens_of_an_empty_mask_equal_the_full_forward(latents):
    model = build(out_type='raw').eval()
    everything = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(model.forward_visible(latents, everything), model(latents)[0])


def test_frozen_stages_survive_train():
    model = build(frozen_stages=2, drop_path_rate=0.5)
    model.train()
    trainable = {name.split('.')[0] + '.' + name.split('.')[1] for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {'blocks.2', 'norm.weight', 'norm.bias'}
    assert [block.training for block in model.blocks] == [False, False, True]
    frozen = build(frozen_stages=3)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert not frozen.train().norm.training


def test_drop_path_rises_linearly():
    model = build(drop_path_rate=0.2)
    assert [getattr(block.drop_path, 'drop_prob', 0.0) for block in model.blocks] == pytest.approx([0.0, 0.1, 0.2])


def test_official_initialisation():
    model = MODELS.build(dict(type='USPViT', arch='base'))
    torch.manual_seed(0)
    model.init_weights()
    model.requires_grad_(False)
    qkv = model.blocks[0].attn.qkv
    assert qkv.weight.abs().max() <= (6 / (768 + 3 * 768)) ** 0.5
    assert qkv.weight.std() == pytest.approx((2 / (768 + 3 * 768)) ** 0.5, rel=0.01)
    patch = model.patch_embed.proj.weight
    assert patch.shape == (768, 4, 2, 2)
    assert patch.std() == pytest.approx((2 / (768 + 16)) ** 0.5, rel=0.02)
    assert model.cls_token.std() == pytest.approx(0.02, rel=0.1)
    assert qkv.bias.abs().max() == 0 and model.blocks[0].norm1.eps == 1e-6
    assert sum(p.numel() for n, p in model.named_parameters() if n != 'pos_embed') == 85_069_824


def test_position_table_is_resized_on_load_and_on_larger_input(latents):
    small, large = build(), MODELS.build(dict(type='USPViT', arch=TINY, vae='sd-f8d4', img_size=96))
    large.load_state_dict(small.state_dict(), strict=True)
    assert large.pos_embed.shape == (1, 1 + 36, 32)
    x = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(small.eval()(x)[0], large.eval()(x)[0])


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(arch='bse'), "unknown arch 'bse'.*did you mean 'base'"),
        (dict(arch=dict(dept=3)), "unknown arch key 'dept'.*did you mean 'depth'"),
        (dict(vae='sd-f8d5'), "unknown VAE 'sd-f8d5'.*did you mean 'sd-f8d4'"),
        (dict(img_size=100), 'img_size=100 does not suit.*multiple of 16, such as 96'),
        (dict(out_type='cls'), "out_type='cls' must be one of"),
        (dict(out_indices=12), '12 is not a block of a 12-block encoder'),
        (dict(frozen_stages=13), 'frozen_stages=13 .* set model.backbone.frozen_stages=12, all blocks'),
        (dict(arch='tiny', frozen_stages=12), 'must lie in -1 … 4, the depth: set model.backbone.frozen_stages=4, all blocks'),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        USPViT(**kwargs)


@pytest.mark.parametrize(('arch', 'patch', 'millions'), [('base', 16, 86.6), ('large', 16, 304.3), ('huge', 14, 632.0)])
def test_on_pixels_an_encoder_is_the_vit_of_its_name(arch, patch, millions):
    """ViT-B/16, ViT-L/16 and ViT-H/14 of MAE's table, with their heads of 1,000 classes."""
    with torch.device('meta'):
        model = USPViT(arch=arch, vae='pixel', patch_size=patch)
    trained = sum(p.numel() for p in model.parameters()) - model.pos_embed[:, 0].numel()
    head = 1000 * model.embed_dims + 1000
    assert (trained + head) / 1e6 == pytest.approx(millions, abs=0.1)
    assert [model.blocks[0].attn.num_heads, len(model.blocks)] == {'base': [12, 12], 'large': [16, 24], 'huge': [16, 32]}[arch]


def test_pretraining_refuses_latents_of_another_size():
    with pytest.raises(ValueError, match=r'latents are 12x12 but the backbone pretrains on 8x8 \(img_size=64\)'):
        build().forward_visible(torch.zeros(1, 4, 12, 12), torch.zeros(1, 4, dtype=torch.long))


def test_layer_depth_follows_the_blocks():
    model = build()
    depths = [
        model.get_layer_depth(f'backbone.{n}', 'backbone.')
        for n in ('cls_token', 'patch_embed.proj.bias', 'blocks.1.norm1.bias')
    ]
    assert depths == [(0, 5), (0, 5), (2, 5)]
    assert (
        model.get_layer_depth('backbone.norm.weight', 'backbone.')
        == model.get_layer_depth('head.fc.weight', 'backbone.')
        == (4, 5)
    )


def test_positions_of_another_grid_are_interpolated_as_the_encoder_says():
    bicubic, bilinear = build(), build(interpolate_mode='bilinear')
    wide = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    grid = bilinear.pos_embed[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, size=(6, 6), mode='bilinear', align_corners=False)
    tokens, found = bilinear._embed(wide)
    torch.testing.assert_close(tokens, bilinear.patch_embed(wide) + resized.flatten(2).transpose(1, 2))
    assert found == (6, 6) and not torch.allclose(bicubic._embed(wide)[0], tokens)
