"""The pixel-space MAE that USP is compared with on digits and own pictures: its latents are the pixels, the rest is USP's."""

import pytest
import torch
from helpers.small_world import load_leaf
from mmpretrain.registry import MODELS

from usp_mm.analysis.complexity import build_meta

PAIRS = [
    ('mae_vit-tiny_1xb64-coslr-120e_digits', 'usp_vit-tiny_1xb64-coslr-120e_digits'),
    ('mae_vit-tiny_1xb32-coslr-200e_own', 'usp_vit-tiny_1xb32-coslr-200e_own'),
]


def config(name):
    return load_leaf(f'configs/usp/{name}.py')


@pytest.mark.parametrize('name', [mae for mae, _ in PAIRS])
def test_latents_are_the_pixels_bit_for_bit(name):
    model = MODELS.build(config(name).model)
    images = torch.randint(0, 256, (3, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images[0, :, 0] = torch.arange(64, dtype=torch.uint8) * 4
    for training in (True, False):
        latents = model.data_preprocessor(dict(inputs=images), training=training)['inputs']
        assert torch.equal(latents, (images.flip(1).float() - 127.5) / 127.5)  # files are decoded as BGR
    decoded = model.data_preprocessor.codec.decode(latents)
    assert torch.equal(decoded, latents)
    assert torch.equal((decoded * 127.5 + 127.5).round().to(torch.uint8).flip(1), images)


@pytest.mark.parametrize(('mae', 'usp'), PAIRS)
def test_encoder_tokens_and_schedule_are_those_of_usp(mae, usp):
    pixels, latents = config(mae), config(usp)
    networks = [build_meta(cfg) for cfg in (pixels, latents)]
    assert networks[0].backbone.geometry.grid == networks[1].backbone.geometry.grid
    shapes = [{name: tuple(x.shape) for name, x in network.state_dict().items()} for network in networks]
    differing = {name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name)}
    assert differing == {'backbone.patch_embed.proj.weight', 'neck.decoder_pred.weight', 'neck.decoder_pred.bias'}
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'auto_scale_lr', 'randomness'):
        assert pixels[key] == latents[key]
    assert pixels.train_dataloader.batch_size == latents.train_dataloader.batch_size
    assert (pixels.model.mask_ratio, pixels.model.head) == (latents.model.mask_ratio, latents.model.head)


@pytest.mark.parametrize('name', [mae for mae, _ in PAIRS])
def test_a_step_lowers_the_loss_of_its_own_batch(name):
    torch.manual_seed(0)
    model = MODELS.build(config(name).model)
    model.init_weights()
    latents = model.data_preprocessor(dict(inputs=torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)))['inputs']
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for _ in range(4):
        torch.manual_seed(1)
        loss = model(latents, mode='loss')['loss']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
