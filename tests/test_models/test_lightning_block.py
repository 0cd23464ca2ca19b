"""LightningDiT's block in encoder and generator: names, rotary positions, norms, the gated MLP (arXiv 2501.01423)."""

import math
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS

from usp_mm.engine.records.flops import count_flops
from usp_mm.layers import BlockOptions, ModulatedBlock, RMSNorm, RotaryPositions, TransformerBlock, block_options
from usp_mm.layers.swiglu import SwiGLU

ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=16, decoder_depth=1, decoder_heads=2)
LIGHTNING = block_options('lightning')
GRID = (4, 4)


def encoder(**kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(dict(type='USPViT', arch=ARCH, img_size=64, out_type='raw', block='lightning'), **kwargs))
    model.init_weights()
    return model.eval()


def denoiser(**kwargs):
    """Random weights everywhere: a new model predicts zero."""
    torch.manual_seed(0)
    model = MODELS.build(dict(dict(type='SiT', arch=ARCH, img_size=64, num_classes=10, block='lightning'), **kwargs))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def latents(num=2, size=8):
    return torch.randn(num, 4, size, size, generator=torch.Generator().manual_seed(1))


# ---------------------------------------------------------------------- names and options


#: Of a block of the official code, width 1152.
OFFICIAL = {
    'norm1.weight': (1152,), 'norm2.weight': (1152,),
    'attn.qkv.weight': (3456, 1152), 'attn.qkv.bias': (3456,), 'attn.proj.weight': (1152, 1152), 'attn.proj.bias': (1152,),
    'mlp.w12.weight': (6144, 1152), 'mlp.w12.bias': (6144,), 'mlp.w3.weight': (1152, 3072), 'mlp.w3.bias': (1152,),
    'adaLN_modulation.1.weight': (6912, 1152), 'adaLN_modulation.1.bias': (6912,),
}  # fmt: skip


def test_names_shapes_and_size_are_those_of_the_official_xl():
    with torch.device('meta'):
        model = MODELS.build(dict(type='SiT', arch='xl', vae='va-f16d32', block='lightning', learn_sigma=False))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    for i in range(28):
        prefix = f'blocks.{i}.'
        assert {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)} == OFFICIAL
    assert {name: shape for name, shape in shapes.items() if not name.startswith('blocks.')} == {
        'pos_embed': (1, 256, 1152),
        'x_embedder.proj.weight': (1152, 32, 1, 1), 'x_embedder.proj.bias': (1152,),
        't_embedder.mlp.0.weight': (1152, 256), 't_embedder.mlp.0.bias': (1152,),
        't_embedder.mlp.2.weight': (1152, 1152), 't_embedder.mlp.2.bias': (1152,),
        'y_embedder.embedding_table.weight': (1001, 1152),
        'final_layer.norm_final.weight': (1152,),
        'final_layer.linear.weight': (32, 1152), 'final_layer.linear.bias': (32,),
        'final_layer.adaLN_modulation.1.weight': (2304, 1152), 'final_layer.adaLN_modulation.1.bias': (2304,),
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == pytest.approx(675e6, rel=0.01)


def test_a_single_option_changes_its_part_alone():
    plain = set(denoiser(block='plain').state_dict())
    assert set(denoiser(block=dict(rope=True)).state_dict()) == plain
    normed = set(denoiser(block=dict(preset='plain', qk_norm=True)).state_dict()) - plain
    assert {re.sub(r'blocks\.\d\.', '', name) for name in normed} == {
        f'attn.{part}_norm.{name}' for part in 'qk' for name in ('weight', 'bias')
    }
    lightning = denoiser(block=dict(preset='lightning', qk_norm=True)).state_dict()
    assert {name: tuple(lightning[name].shape) for name in lightning if 'k_norm' in name or 'q_norm' in name} == {
        f'blocks.{i}.attn.{part}_norm.weight': (16,) for i in range(2) for part in 'qk'
    }
    assert block_options('plain') == BlockOptions() and block_options({}) == BlockOptions()
    assert BlockOptions('rms', 'swiglu', True, False) == LIGHTNING


@pytest.mark.parametrize(('block', 'message'), [
    ('lightnin', r"unknown block 'lightnin'.*did you mean 'lightning'\?"),
    (None, r"block=None must be one of \['lightning', 'plain'\], or a dict of options"),
    (dict(preset='plane'), r"unknown block 'plane'.*did you mean 'plain'\?"),
    (dict(ropes=True), r"unknown block option 'ropes': expected \['preset', 'norm', 'mlp', 'rope', 'qk_norm'\].*'rope'\?"),
    (dict(norm='rsm'), r"unknown block norm 'rsm'.*did you mean 'rms'\?"),
    (dict(mlp='swiglue'), r"unknown block mlp 'swiglue'.*did you mean 'swiglu'\?"),
    (dict(qk_norm='rms'), r"block qk_norm='rms' must be True or False"),
])  # fmt: skip
@pytest.mark.parametrize('build', [encoder, denoiser])
def test_unknown_options_are_errors(build, block, message):
    with pytest.raises(ValueError, match=message):
        build(block=block)


def test_heads_too_narrow_to_rotate_are_an_error():
    with pytest.raises(ValueError, match='a multiple of 4, got 10'):
        encoder(arch=dict(ARCH, embed_dims=40, num_heads=4))


# ---------------------------------------------------------------------- parts


def test_rotations_are_those_of_eva():
    """Pair k of H of a head's first half turns by row·10000^(-k/H), of its second half by the column's."""
    sin, cos = RotaryPositions(16, (3, 5))().chunk(2, dim=-1)
    for token in range(15):
        row, col = divmod(token, 5)
        angles = [position * 10000 ** (-k / 4) for position in (row, col) for k in range(4)]
        pairs = [angle for angle in angles for _ in range(2)]
        assert sin[token].tolist() == pytest.approx([math.sin(angle) for angle in pairs], abs=1e-6)
        assert cos[token].tolist() == pytest.approx([math.cos(angle) for angle in pairs], abs=1e-6)


def test_another_grid_is_scaled_onto_the_training_images():
    rope = RotaryPositions(16, (4, 4))
    assert torch.equal(rope((4, 4)), rope()) and rope((8, 8)).shape == (64, 32)
    torch.testing.assert_close(rope((8, 8)).view(8, 8, -1)[::2, ::2].flatten(0, 1), rope())
    assert not rope.state_dict() and not list(rope.parameters())
    assert rope.to(torch.float64)().dtype == torch.float64


def test_attention_depends_on_the_distance_of_tokens_alone():
    torch.manual_seed(0)
    block, rope = TransformerBlock(48, 3, options=LIGHTNING, num_prefix_tokens=0), RotaryPositions(16, GRID)
    x = torch.randn(2, 3, 48)
    corner, moved, mirrored = (torch.tensor(ids).expand(2, -1) for ids in ([0, 1, 5], [9, 10, 14], [1, 0, 4]))
    out = block(x, rope(keep=corner))
    torch.testing.assert_close(block(x, rope(keep=moved)), out, rtol=1e-5, atol=1e-5)
    assert (block(x, rope(keep=mirrored)) - out).abs().max() > 1e-3
    assert (block(x) - out).abs().max() > 1e-3


def test_queries_and_keys_are_normed_then_rotated():
    """A block's attention, step by step."""
    torch.manual_seed(0)
    block = ModulatedBlock(48, 3, options=block_options(dict(preset='lightning', qk_norm=True)))
    attn, rope, x = block.attn, RotaryPositions(16, GRID)(), torch.randn(2, 16, 48)
    torch.nn.init.normal_(attn.q_norm.weight)
    q, k, v = attn.qkv(x).view(2, 16, 3, 3, 16).permute(2, 0, 3, 1, 4)
    turn = torch.view_as_complex(torch.stack([rope[:, 16::2], rope[:, :16:2]], dim=-1))

    def prepare(y, weight):
        y = y * (y.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weight
        return torch.view_as_real(torch.view_as_complex(y.unflatten(-1, (8, 2))) * turn).flatten(-2)

    q, k = prepare(q, attn.q_norm.weight), prepare(k, attn.k_norm.weight)
    out = ((q @ k.mT / 4).softmax(-1) @ v).transpose(1, 2).reshape(2, 16, 48)
    torch.testing.assert_close(attn(x, rope), attn.proj(out), rtol=1e-5, atol=1e-5)


def test_swiglu_gates_with_its_first_half():
    mlp, x = SwiGLU(6, 4), torch.randn(3, 6)
    w1, w2 = mlp.w12.weight.chunk(2)
    b1, b2 = mlp.w12.bias.chunk(2)
    expected = F.linear(F.silu(F.linear(x, w1, b1)) * F.linear(x, w2, b2), mlp.w3.weight, mlp.w3.bias)
    torch.testing.assert_close(mlp(x), expected)
    assert mlp.state_dict().keys() == {'w12.weight', 'w12.bias', 'w3.weight', 'w3.bias'}


def test_rms_norm_keeps_the_type_and_computes_in_float32():
    norm, x = RMSNorm(48), torch.randn(4, 48) * 100
    torch.nn.init.normal_(norm.weight)
    expected = x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * norm.weight
    torch.testing.assert_close(norm(x), expected)
    with warnings.catch_warnings(), torch.autocast('cpu', torch.bfloat16):
        warnings.simplefilter('error')  # torch warns where it has no fused kernel
        half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, rtol=2e-2, atol=1e-2)
    assert RMSNorm(48, elementwise_affine=False).weight is None


# ---------------------------------------------------------------------- encoder


def test_visible_tokens_keep_their_own_positions():
    model, x = encoder(), latents()
    model.pos_embed.data.zero_()  # positions by rotation alone
    everything = torch.arange(16).expand(2, -1)
    full = model.forward_visible(x, everything)
    torch.testing.assert_close(full, model(x)[0])
    shuffle = torch.stack([torch.randperm(16), torch.randperm(16)])
    shuffled = model.forward_visible(x, shuffle)
    torch.testing.assert_close(shuffled[:, :1], full[:, :1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        shuffled[:, 1:], full[:, 1:].gather(1, shuffle[..., None].expand(-1, -1, 48)), rtol=1e-5, atol=1e-5
    )
    model.rope = None
    assert (model.forward_visible(x, everything) - full).abs().max() > 1e-3


def test_the_class_token_is_not_rotated():
    torch.manual_seed(0)
    block, rope, x = encoder().blocks[0], RotaryPositions(16, GRID)(), torch.randn(1, 17, 48)
    out = block(x, rope)
    block.attn.num_prefix_tokens = 0
    no_angle = torch.cat([torch.zeros(1, 16), torch.ones(1, 16)], dim=1)
    torch.testing.assert_close(block(x, torch.cat([no_angle, rope])), out)


def test_encoder_names_and_larger_images():
    model = encoder(out_type='avg_featmap')
    names = set(model.state_dict())
    assert {'fc_norm.weight', 'blocks.0.norm1.weight', 'blocks.1.mlp.w12.weight'} <= names
    assert not any(name.endswith(('norm1.bias', 'fc_norm.bias')) or 'rope' in name for name in names)
    assert model.blocks[0].norm1.eps == 1e-6
    assert model(latents(size=12))[0].shape == (2, 48)


def test_pretraining_steps_and_its_decoder_stays_plain():
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type='USP',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64, block='lightning'),
        )
    )
    model.init_weights()
    assert {'decoder_blocks.0.mlp.fc1.weight', 'decoder_norm.bias'} <= set(model.neck.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model.loss(latents(4), None)['loss']
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


# ---------------------------------------------------------------------- generator


def test_a_sample_does_not_depend_on_its_batch_to_the_bit():
    model, x, t, y = denoiser(block=dict(preset='lightning', qk_norm=True)), latents(6), torch.rand(6), torch.arange(6)
    with torch.no_grad():
        whole = model(x, t, y)
        for num in (1, 2, 4):
            parts = [model(*part) for part in zip(x.split(num), t.split(num), y.split(num), strict=True)]
            assert torch.equal(torch.cat(parts), whole), num


def test_recomputed_activations_give_the_same_gradients():
    grads = []
    for with_cp in (False, True):
        model = denoiser(with_cp=with_cp)
        model(latents(), torch.tensor([0.2, 0.7]), torch.arange(2)).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(*grads) and grads[0].abs().max() > 0


def test_gates_of_one_make_a_block_the_pretrained_one():
    source, model = encoder(), MODELS.build(dict(type='SiT', arch=ARCH, img_size=64, block='lightning', gate_bias=1.0))
    model.init_weights()
    model.blocks[0].load_state_dict(source.blocks[0].state_dict(), strict=False)
    with torch.no_grad():
        hidden = model.eval()(latents(), torch.rand(2), torch.arange(2), return_hidden=[1])[1][1]
        tokens = model.x_embedder(latents()) + model.pos_embed
        source.blocks[0].attn.num_prefix_tokens = 0
        torch.testing.assert_close(hidden, source.blocks[0](tokens, model.rope()))


def test_it_costs_what_the_plain_one_does():
    """Three matrices of two thirds of the width; nothing of norms and rotations counts."""
    counts = []
    for block in ('plain', 'lightning'):
        generator = torch.nn.Module()
        generator.denoiser = denoiser(block=block)
        counts.append(count_flops(generator))
    assert counts[0] == counts[1]
