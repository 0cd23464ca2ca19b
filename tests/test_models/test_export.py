"""`torch.export` of what is deployed, with any number of images: the exported programs compute what the models do."""

import pytest
import torch
from helpers.small_world import ARCH
from mmpretrain.registry import MODELS
from torch.export import Dim, export

SIDE = 64
NUM = Dim('num')


def randomised(cfg):
    """A model in eval mode, with no output that is zero because it is new."""
    torch.manual_seed(0)
    model = MODELS.build(cfg).eval()
    for parameter in model.parameters():
        if parameter.ndim < 3:
            torch.nn.init.normal_(parameter.data, std=0.1)
    return model


def inputs(num, *more):
    generator = torch.Generator().manual_seed(num)
    images = more == ('images',)
    first = torch.randn(num, *((3, SIDE, SIDE) if images else (4, SIDE // 8, SIDE // 8)), generator=generator)
    return first, *(torch.rand(num, generator=generator) if kind == 't' else torch.arange(num) % 2 for kind in more[images:])


def check(model, *more):
    """Exported from two images, the model gives for other numbers what it gives itself, to 1e-6; returns the program."""
    example = inputs(2, *more)
    program = export(model, example, dynamic_shapes=({0: NUM},) * len(example))
    exported = program.module()
    with torch.no_grad():
        for num in (1, 3, 5, 17):
            wanted, found = model(*inputs(num, *more)), exported(*inputs(num, *more))
            for a, b in zip(*((x if isinstance(x, tuple) else (x,)) for x in (wanted, found)), strict=True):
                assert len(b) == num and a.std() > 1e-3
                torch.testing.assert_close(b, a, rtol=0, atol=1e-6)
    kinds = [str(node.target) for node in program.graph.nodes]
    assert sum('scaled_dot_product_attention' in kind for kind in kinds) == ARCH['depth']
    return program


@pytest.mark.parametrize(
    ('out_type', 'block'),
    [('raw', 'plain'), ('cls_token', 'lightning'), ('avg_featmap', 'plain'), ('featmap', 'plain'), ('featmap', 'lightning')],
)
def test_encoder(out_type, block):
    check(randomised(dict(type='USPViT', arch=ARCH, img_size=SIDE, out_type=out_type, block=block, out_indices=(0, -1))))


@pytest.mark.parametrize('neck', [None, dict(type='ClsBatchNormNeck')])
def test_classifier_is_the_same_after_a_file(neck, tmp_path):
    head, images = dict(type='LinearClsHead', num_classes=3), dict(load_vae=False)
    backbone = dict(type='USPViT', arch=ARCH, img_size=SIDE)
    model = randomised(dict(type='USPClassifier', backbone=backbone, neck=neck, head=head, data_preprocessor=images))
    torch.export.save(check(model), tmp_path / 'classifier.pt2')
    loaded = torch.export.load(tmp_path / 'classifier.pt2').module()
    with torch.no_grad():
        assert loaded(*inputs(3)).shape == (3, 3)
        torch.testing.assert_close(loaded(*inputs(3)), model(*inputs(3)), rtol=0, atol=1e-6)


@pytest.mark.parametrize('grad', [True, False])
@pytest.mark.parametrize(('network', 'block'), [('SiT', 'plain'), ('SiT', 'lightning'), ('DiT', 'plain')])
def test_denoiser(network, block, grad):
    model = randomised(dict(type=network, arch=ARCH, img_size=SIDE, num_classes=2, block=block))
    with torch.set_grad_enabled(grad):
        check(model, 't', 'y')


@pytest.mark.parametrize('train_vae', [False, True])
def test_encoder_with_the_vae_in_front(train_vae, tiny_vae_folder):
    vae = dict(name='tiny', path=str(tiny_vae_folder))
    model = randomised(dict(type='USPViT', arch=ARCH, vae=vae, img_size=SIDE, encode_images=True, train_vae=train_vae))
    program = export(model, inputs(2, 'images'), dynamic_shapes=({0: NUM},))
    for num in (1, 3, 5):
        with torch.no_grad():
            (wanted,), (found,) = model(*inputs(num, 'images')), program.module()(*inputs(num, 'images'))
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def test_pretraining_encoder_of_visible_tokens():
    model = randomised(dict(type='USPViT', arch=ARCH, img_size=SIDE, out_type='raw', block='lightning'))

    class Visible(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = model

        def forward(self, latents):
            num = latents.shape[0]
            return self.encoder.forward_visible(latents, torch.arange(4).expand(num, -1))

    check(Visible().eval())
