"""The generators' network against the official code's numbers, built through the registry."""

import pytest
import torch
from golden import golden_weights, load
from mmpretrain.registry import MODELS

ARCH = dict(embed_dims=48, depth=2, num_heads=3)


def build(kind='DiT', **kwargs):
    """The golden network: official weights by name, in eval mode."""
    model = MODELS.build(dict(type=kind, arch=ARCH, img_size=64, num_classes=10, **kwargs))
    shapes = {name: value.shape for name, value in model.state_dict().items() if name != 'pos_embed'}
    result = model.load_state_dict(golden_weights(shapes), strict=False)
    assert result.missing_keys == ['pos_embed'] and not result.unexpected_keys
    return model.eval()


def inputs(golden):
    return [torch.from_numpy(golden[key]) for key in ('x', 't', 'y')]


@pytest.mark.parametrize(('norm_affine', 'key'), [(True, 'out'), (False, 'out_without_affine')])
def test_dit(norm_affine, key):
    golden = load('dit_forward')
    with torch.no_grad():
        out = build(norm_affine=norm_affine)(*inputs(golden))
    torch.testing.assert_close(out, torch.from_numpy(golden[key]), atol=1e-5, rtol=0)


def test_sit():
    golden = load('sit_forward')
    with torch.no_grad():
        out = build('SiT')(*inputs(golden))
    torch.testing.assert_close(out, torch.from_numpy(golden['out']), atol=1e-5, rtol=0)


def test_official_names():
    names = set(build().state_dict())
    block = ('norm1', 'attn.qkv', 'attn.proj', 'norm2', 'mlp.fc1', 'mlp.fc2', 'adaLN_modulation.1')
    layers = [f'blocks.{i}.{name}' for i in range(2) for name in block]
    layers += ['x_embedder.proj', 't_embedder.mlp.0', 't_embedder.mlp.2', 'final_layer.linear']
    layers += ['final_layer.adaLN_modulation.1']
    assert names == {f'{layer}.{kind}' for layer in layers for kind in ('weight', 'bias')} | {
        'pos_embed',
        'y_embedder.embedding_table.weight',
    }
