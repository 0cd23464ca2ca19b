"""The pretraining algorithm: addressable masks, the VAE's invisibility, training arithmetic."""

import copy

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import build_optim_wrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.datasets.epoch_index import EpochIndex
from usp_mm.functional.patchify import patchify
from usp_mm.models.random_keys import sample_keys

ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type='USP',
        data_preprocessor=dict(type='LatentDataPreprocessor', vae='sd-f8d4', load_vae=False),
        backbone=dict(type='USPViT', arch=ARCH, img_size=64),
    )
    model = MODELS.build({**cfg, **kwargs})
    model.init_weights()
    return model


def samples_of(indices, epoch=0, seed=0):
    return [DataSample(metainfo={'sample_idx': EpochIndex(i, epoch, seed)}) for i in indices]


def latents(num=4):
    return torch.randn(num, 4, 8, 8, generator=torch.Generator().manual_seed(1))


def test_a_mask_depends_on_seed_epoch_and_sample_alone():
    model, x = build(), latents()
    masks = model.draw_mask(x, samples_of([5, 9, 2, 7])).mask
    assert masks.sum(1).tolist() == [12] * 4
    assert torch.equal(model.draw_mask(x[:2], samples_of([2, 7])).mask, masks[2:])
    for other in (samples_of([5, 9, 2, 7], epoch=1), samples_of([5, 9, 2, 7], seed=1)):
        assert not torch.equal(model.draw_mask(x, other).mask, masks)


def test_without_an_epoch_masks_are_fresh_in_training_and_fixed_in_evaluation():
    model, x = build(), latents()
    plain = [DataSample(metainfo={'sample_idx': i}) for i in range(4)]
    for samples in (plain, None):
        model.train()
        assert not torch.equal(model.draw_mask(x, samples).mask, model.draw_mask(x, samples).mask)
        model.eval()
        assert torch.equal(model.draw_mask(x, samples).mask, model.draw_mask(x, samples).mask)


def test_loss_of_a_batch_is_the_mean_of_its_halves():
    model, x, samples = build(), latents(), samples_of([5, 9, 2, 7])
    halves = [model.loss(x[i : i + 2], samples[i : i + 2])['loss'] for i in (0, 2)]
    torch.testing.assert_close(model.loss(x, samples)['loss'], sum(halves) / 2)


def test_noised_input_keeps_the_clean_target():
    x, samples = latents(), samples_of(range(4))
    plain, noised = build(), build(alpha_bar_range=(0.5, 1.0))
    mask, keys = plain.draw_mask(x, samples), sample_keys(samples, 4, x.device, training=False)
    expected = noised.head.loss(noised.predict_patches(noised._noised(x, keys), mask), x, mask.mask)
    torch.testing.assert_close(noised.loss(x, samples)['loss'], expected)
    assert 0.05 < (noised._noised(x, keys) - x).std() < 1.0
    assert torch.equal(build(alpha_bar_range=(1.0, 1.0)).loss(x, samples)['loss'], plain.loss(x, samples)['loss'])


def test_reconstruct_returns_latents_on_the_true_scale():
    model, x = build(), latents() * 3 + 5
    torch.nn.init.zeros_(model.neck.decoder_pred.weight)  # predicts zero, the normalised mean
    restored, mask = model.reconstruct(x, samples_of(range(4)))
    patch_means = patchify(x, 2).mean(-1).reshape(4, 1, 4, 4)
    torch.testing.assert_close(restored, patch_means.repeat_interleave(2, 2).repeat_interleave(2, 3).expand(-1, 4, -1, -1))
    assert mask.shape == (4, 1, 4, 4) and mask.sum() == 48


def test_vae_leaves_no_trace_and_checkpoints_load_wherever_it_stands(tiny_vae_folder):
    kwargs = dict(vae=dict(name='tiny', path=str(tiny_vae_folder)))
    model = build(data_preprocessor=dict(type='LatentDataPreprocessor', **kwargs))
    names = {name.split('.')[0] for name in model.state_dict()}
    assert names == {'backbone', 'neck'}
    assert {name.split('.')[0] for name, _ in model.named_parameters()} == {'backbone', 'neck'}
    codec = model.data_preprocessor.codec
    before = codec.weight_hash
    model.train()
    model.init_weights()
    assert not codec.network.training and codec.weight_hash == before
    assert copy.deepcopy(model).data_preprocessor.codec is codec
    ema = ExponentialMovingAverage(model)
    assert {name.split('.')[1] for name in ema.state_dict() if name != 'steps'} == {'backbone', 'neck'}

    images = torch.rand(1, 3, 64, 64) * 2 - 1
    outside = MODELS.build(dict(type='USPViT', arch=ARCH, img_size=64, vae='tiny'))
    inside = MODELS.build(dict(type='USPViT', arch=ARCH, img_size=64, encode_images=True, **kwargs))
    for backbone in (outside, inside):
        backbone.load_state_dict(model.backbone.state_dict(), strict=True)
        backbone.eval()
    torch.testing.assert_close(inside(images)[0], outside(codec.mode(codec.encode(images)))[0])


def test_ten_adamw_steps_follow_a_plain_torch_loop_bit_for_bit():
    """Decay and betas of section 3.1 against torch's AdamW with two hand-made groups."""
    ours, plain = build(), build()
    optim_cfg = dict(
        optimizer=dict(type='AdamW', lr=2.4e-3, betas=(0.9, 0.95), weight_decay=0.05), paramwise_cfg=dict(flat_decay_mult=0.0)
    )
    wrapper = build_optim_wrapper(ours, {'type': 'OptimWrapper', **optim_cfg})
    trained = [p for p in plain.parameters() if p.requires_grad]
    groups = [
        dict(params=[p for p in trained if p.ndim > 1], weight_decay=0.05),
        dict(params=[p for p in trained if p.ndim == 1], weight_decay=0.0),
    ]
    optimizer = torch.optim.AdamW(groups, lr=2.4e-3, betas=(0.9, 0.95))
    assert any(p is plain.backbone.cls_token for p in groups[0]['params'])
    assert any(p is plain.neck.mask_token for p in groups[0]['params'])
    for step in range(10):
        data = dict(inputs=latents() + step, data_samples=samples_of(range(4), epoch=step))
        log = ours.train_step(data, wrapper)
        optimizer.zero_grad()
        loss = plain.loss(data['inputs'], data['data_samples'])['loss']
        loss.backward()
        optimizer.step()
        assert torch.equal(log['loss'], loss)
    for (name, ours_p), plain_p in zip(ours.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours_p, plain_p), name


def test_target_is_float32_under_autocast():
    model, x, samples = build(), latents(), samples_of(range(4))
    mask = model.draw_mask(x, samples)
    pred = model.predict_patches(x, mask)
    full = model.head.loss(pred, x, mask.mask)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = model.head.loss(pred, x, mask.mask)
    assert torch.equal(inside, full)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(mask_ratio=1.0), 'mask_ratio=1.0 must lie between 0 and 1'),
        (dict(alpha_bar_range=(0.5, 1.5)), r'alpha_bar_range=\(0.5, 1.5\) must be \(low, high\)'),
        (dict(head=dict(type='USPHead', norm_pix='pix')), "norm_pix='pix' must be"),
        (dict(head=dict(type='USPHead', patch_size=4)), "head.patch_size=4, but the backbone's is 2: set only model.backbone"),
        (
            dict(backbone=dict(type='USPViT', arch=ARCH, img_size=64, vae='kl-f16d16')),
            "backbone is built for VAE 'kl-f16d16' but the data preprocessor encodes with 'sd-f8d4'",
        ),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)
