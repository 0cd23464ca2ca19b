"""DiT and SiT beyond parity: sizes, initialisation, options, and independence of the batch."""

import pytest
import torch
from mmpretrain.registry import MODELS

from usp_mm.layers.modulation import conditioning

SMALL = dict(embed_dims=32, depth=3, num_heads=2)


def build(kind='DiT', **kwargs):
    return MODELS.build(dict(type=kind, **{'arch': SMALL, 'img_size': 64, 'num_classes': 10, **kwargs}))


def batch(num=3, channels=4, size=8):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, channels, size, size, generator=generator), torch.rand(num, generator=generator), torch.arange(num)


def parameters(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(('arch', 'millions'), [('small', 33), ('base', 130), ('large', 458), ('xl', 675)])
@pytest.mark.parametrize('kind', ['DiT', 'SiT'])
def test_parameters_are_those_of_table_1_and_of_s(kind, arch, millions):
    with torch.device('meta'):
        model = MODELS.build(dict(type=kind, arch=arch))
    assert parameters(model) == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize(('vae', 'patch', 'tokens', 'channels'), [
    ('sd-f8d4', 1, 1024, 4), ('sd-f8d4', 2, 256, 4), ('sd-f8d4', 4, 64, 4),
    ('kl-f16d16', 1, 256, 16), ('va-f16d32', 1, 256, 32),
])  # fmt: skip
def test_patches_and_latents(vae, patch, tokens, channels):
    model = build('SiT', vae=vae, patch_size=patch, img_size=256).eval()
    side = model.geometry.latent_size
    x, t, y = batch(2, channels, side)
    assert model.pos_embed.shape == (1, tokens, 32)
    assert model(x, t, y).shape == (2, channels, side, side) and model.out_channels == channels


def test_a_new_model_predicts_zero_from_identity_blocks():
    model = build().eval()
    model.init_weights()
    x, t, y = batch()
    with torch.no_grad():
        out, hidden = model(x, t, y, return_hidden=[1, 3])
    assert out.shape == (3, 8, 8, 8) and not out.any()
    torch.testing.assert_close(hidden[1], model.x_embedder(x) + model.pos_embed)
    assert torch.equal(hidden[1], hidden[3])
    assert model.y_embedder.embedding_table.weight.shape == (11, 32) and model.null_label == 10
    assert not model.pos_embed.requires_grad


def test_gates_of_one_make_a_block_the_pretrained_one():
    encoder = MODELS.build(dict(type='USPViT', arch=SMALL, vae='tiny', img_size=64))
    model = build(gate_bias=1.0, act='gelu').eval()
    model.init_weights()
    model.blocks[0].load_state_dict(encoder.blocks[0].state_dict(), strict=False)
    x, t, y = batch()
    with torch.no_grad():
        hidden = model(x, t, y, return_hidden=[1])[1][1]
        torch.testing.assert_close(hidden, encoder.blocks[0](model.x_embedder(x) + model.pos_embed))


def test_checkpointed_gradients_are_the_same():
    x, t, y = batch()
    grads = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(with_cp=with_cp)
        model(x, t, y).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.equal(*grads) and grads[0].abs().max() > 0


@pytest.mark.parametrize('arch', [SMALL, 'tiny', dict(embed_dims=384, depth=2, num_heads=6)])
def test_a_sample_does_not_depend_on_its_batch_to_the_bit(arch):
    torch.manual_seed(0)
    model = build('SiT', arch=arch).eval()
    x, t, y = batch(8)
    with torch.no_grad():
        whole = model(x, t, y)
        for num in (1, 2, 3, 4, 5):
            parts = [model(*part) for part in zip(x.split(num), t.split(num), y.split(num), strict=True)]
            assert torch.equal(torch.cat(parts), whole), num


def test_bad_input():
    with pytest.raises(ValueError, match=r"unknown act 'gelu_tan'.*did you mean 'gelu_tanh'"):
        build(act='gelu_tan')
    with pytest.raises(ValueError, match=r'class_dropout=1.0 must lie in \[0, 1\)'):
        build(class_dropout=1.0)
    with pytest.raises(ValueError, match=r'latents are \(4, 16, 16\), but DiT is built for \(4, 8, 8\)'):
        build()(*batch(size=16))
    with pytest.raises(ValueError, match=r'return_hidden=.*4 is not a block from 1 to 3'):
        build()(*batch(), return_hidden=[4])


@pytest.mark.parametrize(('device', 'grad', 'rows'), [('cpu', False, 16), ('cpu', True, 3), ('meta', False, 3)])
def test_rows_are_filled_up_on_a_cpu_alone(device, grad, rows):
    """For bits that don't depend on the batch; elsewhere the conditioning is computed of the batch as it is."""
    seen = []
    with torch.set_grad_enabled(grad):
        out = conditioning(lambda c: seen.append(len(c)) or c, torch.ones(3, 8, device=device))
    assert seen == [rows] and out.shape == (3, 8)
