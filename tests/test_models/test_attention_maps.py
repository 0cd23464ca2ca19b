"""Attention weights against a softmax written out, and the pictures of what an encoder sees."""

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

from usp_mm.models.attention_maps import attention_maps, block_number, sight_picture, token_colours

ARCH = dict(embed_dims=32, depth=3, num_heads=2)
BLOCKS = dict(plain='plain', lightning='lightning', normed=dict(norm='rms', mlp='gelu', rope=True, qk_norm=True))


def encoder(block='plain', **kwargs):
    torch.manual_seed(0)
    model = MODELS.build(dict(type='USPViT', arch=ARCH, vae='tiny', img_size=64, out_type='raw', block=block, **kwargs))
    model.init_weights()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape)
    return model.eval()


def latents(side=8, num=3):
    return torch.randn(num, 4, side, side, generator=torch.Generator().manual_seed(1))


def plain_weights(model, x, layer):
    """softmax(QKᵀ/√d), pair by pair of rotated channels, from the weights of the state dict."""
    model.out_indices, grid = (max(layer - 2, 0),), (x.shape[2] // 2, x.shape[3] // 2)
    tokens = model(x)[0] if layer > 1 else torch.cat([model._class_token(len(x)), model._embed(x)[0]], 1)
    attn = model.blocks[layer - 1].attn
    q, k, _ = (model.blocks[layer - 1].norm1(tokens) @ attn.qkv.weight.T + attn.qkv.bias).chunk(3, dim=-1)
    found = []
    for head in range(2):
        a, b = (attn_norm(z[..., 16 * head : 16 * head + 16]) for attn_norm, z in ((attn.q_norm, q), (attn.k_norm, k)))
        if model.rope is not None:
            a, b = (rotated(z, grid, model.geometry.grid) for z in (a, b))
        scores = torch.einsum('nid,njd->nij', a, b) / 4  # the square root of 16
        found.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
    return torch.stack(found, 1)


def rotated(x, grid, trained_on):
    """Channels (2k, 2k + 1) of token (row, column) by an angle 10000^(-k/4) times row, then column; the class token stays."""
    out = x.clone()
    for token in range(grid[0] * grid[1]):
        row, column = token // grid[1] * trained_on[0] / grid[0], token % grid[1] * trained_on[1] / grid[1]
        for pair in range(8):
            angle = torch.tensor((row if pair < 4 else column) * 10000 ** (-(pair % 4) / 4))
            one, two = x[:, 1 + token, 2 * pair], x[:, 1 + token, 2 * pair + 1]
            out[:, 1 + token, 2 * pair] = one * angle.cos() - two * angle.sin()
            out[:, 1 + token, 2 * pair + 1] = two * angle.cos() + one * angle.sin()
    return out


@pytest.mark.parametrize('layer', [1, 2, 3])
@pytest.mark.parametrize('block', BLOCKS.values(), ids=BLOCKS)
@torch.no_grad()
def test_weights_are_a_softmax_written_out(block, layer):
    model, x = encoder(block), latents()
    weights, grid = model.attention_weights(x, layer)
    assert grid == (4, 4) and weights.shape == (3, 2, 17, 17)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 2, 17))
    torch.testing.assert_close(weights, plain_weights(model, x, layer), atol=1e-5, rtol=1e-4)
    assert weights.std(-1).mean() > 0.01  # not uniform: the comparison says something


@pytest.mark.parametrize('block', BLOCKS.values(), ids=BLOCKS)
@torch.no_grad()
def test_weights_times_values_are_the_attention_of_the_module(block):
    model, x = encoder(block), latents(side=12)  # another grid than that of training: 6 x 6
    weights, grid = model.attention_weights(x, 3)
    model.out_indices = (1,)
    tokens, last = model(x)[0], model.blocks[2]
    normed = last.norm1(tokens)
    values = last.attn.qkv(normed)[..., 64:].unflatten(-1, (2, 16)).transpose(1, 2)
    ours = last.attn.proj((weights @ values).transpose(1, 2).flatten(2))
    assert grid == (6, 6)
    torch.testing.assert_close(ours, last.attn(normed, None if model.rope is None else model.rope(grid)), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_looking_changes_no_result():
    model, x = encoder('lightning'), latents()
    before = model(x)[0]
    state = {name: value.clone() for name, value in model.state_dict().items()}
    attention_maps(model, x, 2)
    assert torch.equal(model(x)[0], before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_maps_are_rows_of_the_weights():
    model, x = encoder(), latents()
    with torch.no_grad():
        weights, _ = model.attention_weights(x, 3)
    of_class, received = (attention_maps(model, x, 3, query) for query in ('cls', 'patches'))
    assert of_class.shape == (3, 2, 4, 4) and not of_class.requires_grad
    assert torch.equal(of_class[1, 1, 2, 3], weights[1, 1, 0, 1 + 2 * 4 + 3])
    torch.testing.assert_close(received[1, 1, 2, 3], weights[1, 1, 1:, 1 + 2 * 4 + 3].mean())
    torch.testing.assert_close(of_class.sum((2, 3)), 1 - weights[:, :, 0, 0])
    with pytest.raises(ValueError, match=r"query='mean' must be one of \('cls', 'patches'\)"):
        attention_maps(model, x, 3, 'mean')


def test_blocks_are_counted_from_one_or_from_the_end():
    assert [block_number(k, 4) for k in (1, 4, -1, -4)] == [1, 4, 4, 1]
    for wrong in (0, 5, -5, True, 2.0, '2'):
        with pytest.raises(ValueError, match=f'layer {wrong} is not there: the model has blocks 1 to 4'):
            block_number(wrong, 4)
    for wrong in (0, 4):
        with pytest.raises(ValueError, match=f'layer {wrong} is not there: the model has blocks 1 to 3'):
            encoder().attention_weights(latents(), wrong)


def test_colours_are_those_of_all_images_together():
    tokens = torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(3))
    tokens[1, :, 0] += 30  # the first component tells the images apart
    colours, shares = token_colours(tokens)
    assert colours.shape == (2, 16, 3) and colours.dtype == torch.uint8
    assert (colours[0, :, 0].max() < 60 and colours[1, :, 0].min() > 195) and shares[0] > 0.7
    assert torch.equal(token_colours(tokens)[0], colours)


def test_the_picture_has_a_row_for_each_image_and_a_column_for_each_head():
    pictures = np.full((2, 64, 64, 3), 7, np.uint8)
    maps = np.zeros((2, 3, 2, 2), np.float32)
    maps[0, 1, 0, 1], maps[1, 2, 1, 0] = 0.2, 0.9
    colours = np.zeros((2, 2, 2, 3), np.uint8)
    colours[:, 1, 1] = 200, 100, 50
    picture = sight_picture(pictures, maps, colours, 'class token', 'PCA')
    cells = picture[-2 * 132 :].reshape(2, 132, 6, 132, 3)[:, 2:-2, :, 2:-2].swapaxes(1, 2)  # 128 px for 64 px: legible titles
    assert picture.shape[1] == 6 * 132 and 10 < picture.shape[0] - 2 * 132 < 80
    assert (cells[:, 0] == 7).all() and (cells[:, 5, 64:, 64:] == (200, 100, 50)).all() and (cells[:, 5, :64] == 0).all()
    yellow, blue = (253, 231, 36), (68, 1, 84)  # both ends of viridis
    assert (cells[0, 3, :64, 64:] == yellow).all() and (cells[0, 3, 64:] == blue).all()  # head 2, by its own largest value
    assert (cells[1, 4, 64:, :64] == yellow).all() and (cells[0, 2] == blue).all()  # head 1 is all zero
    assert (cells[0, 1, :64, 64:] == yellow).all()  # the mean
