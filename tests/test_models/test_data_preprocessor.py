import copy

import numpy as np
import pytest
import torch
from mmpretrain.models.utils.batch_augments import RandomBatchAugment
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.datasets.epoch_index import EpochIndex
from usp_mm.functional.ddpm import linear_alpha_bar


@pytest.fixture
def build(tiny_vae_folder):
    def build(**kwargs):
        cfg = dict(type='LatentDataPreprocessor', vae=dict(name='tiny', path=str(tiny_vae_folder)))
        return MODELS.build({**cfg, **kwargs})

    return build


def batch(num=3, size=32, **metainfo):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, size, size), generator=generator).to(torch.uint8)
    samples = [DataSample(metainfo={'sample_idx': EpochIndex(i, 2, 7)}).set_gt_label(i % 2) for i in range(num)]
    return dict(inputs=images, data_samples=samples)


def moments_of(preprocessor, images):
    return preprocessor.codec.encode((images.flip(1).float() - 127.5) / 127.5)


def test_images_are_normalised_flipped_to_rgb_and_encoded_to_the_mode(build):
    preprocessor, data = build(), batch()
    out = preprocessor(data, training=True)['inputs']
    torch.testing.assert_close(out, preprocessor.codec.mode(moments_of(preprocessor, data['inputs'])), rtol=0, atol=1e-6)
    assert out.dtype == torch.float32 and out.shape == (3, 4, 4, 4) and not out.requires_grad
    inputs_list = list(data['inputs'])
    torch.testing.assert_close(preprocessor(dict(inputs=inputs_list))['inputs'], out)


def test_cached_moments_are_sampled_in_training_by_address_and_their_mode_taken_in_evaluation(build):
    preprocessor, data = build(), batch()
    moments = moments_of(preprocessor, data['inputs'])
    moments[:, 4:] = 0.0  # unit variance: the draws are plain to see
    cached = dict(inputs=moments, data_samples=data['data_samples'])
    first = preprocessor(cached, training=True)['inputs']
    torch.testing.assert_close(preprocessor(cached, training=False)['inputs'], preprocessor.codec.mode(moments))
    assert (first - preprocessor.codec.mode(moments)).std() > 0.3 * preprocessor.codec.scale
    alone = dict(inputs=moments[2:], data_samples=data['data_samples'][2:])
    assert torch.equal(preprocessor(alone, training=True)['inputs'], first[2:])
    later = [DataSample(metainfo={'sample_idx': EpochIndex(i, 3, 7)}) for i in range(3)]
    assert not torch.equal(preprocessor(dict(inputs=moments, data_samples=later), training=True)['inputs'], first)


@pytest.mark.parametrize('auto', ['auto', None])
def test_posterior_left_to_the_kind_of_input_is_the_mode_of_images_and_a_sample_of_moments(build, auto):
    data, preprocessor = batch(), build(posterior=auto)
    moments = moments_of(preprocessor, data['inputs'])
    cached = dict(inputs=moments, data_samples=data['data_samples'])
    assert torch.equal(
        preprocessor(copy.deepcopy(cached), training=True)['inputs'], build(posterior='sample')(cached, training=True)['inputs']
    )
    ours, mode = (p(copy.deepcopy(data), training=True)['inputs'] for p in (preprocessor, build(posterior='mode')))
    assert preprocessor.posterior == 'auto' and torch.equal(ours, mode)


def test_what_a_model_asks_for_comes_beside_the_latents(build):
    preprocessor, data = build(), dict(batch(), teacher_tokens=torch.ones(3, 4, 8))
    assert preprocessor(copy.deepcopy(data), training=True).keys() == {'inputs', 'data_samples'}
    preprocessor.pass_on(keys=True, labels=True, images=True)
    out = preprocessor(data, training=True)
    assert out.keys() == {'inputs', 'data_samples', 'keys', 'labels', 'images', 'teacher_tokens'}
    assert torch.equal(out['images'], data['inputs'].flip(1)) and out['labels'].tolist() == [0, 1, 0]
    assert out['keys'].sample.tolist() == [0, 1, 2] and out['keys'].seed == 7
    assert preprocessor(data).keys() == {'inputs', 'data_samples', 'images', 'teacher_tokens'}


def test_cached_latents_pass(build):
    latents = torch.randn(2, 4, 4, 4).half()
    assert torch.equal(build()(dict(inputs=latents), training=True)['inputs'], latents.float())


def test_latents_stay_float32_under_autocast(build):
    preprocessor, data = build(), batch()
    plain = preprocessor(copy.deepcopy(data))['inputs']
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = preprocessor(data)['inputs']
    assert inside.dtype == torch.float32
    assert torch.equal(inside, plain)


def test_latent_noise_at_a_level_and_at_a_step(build):
    data = batch()
    clean = build()(copy.deepcopy(data))['inputs']
    for level in (dict(alpha_bar=1.0), dict(timestep=0)):
        assert torch.equal(build(noise=level)(copy.deepcopy(data))['inputs'], clean)
    at_step = build(noise=dict(timestep=300))(copy.deepcopy(data))['inputs']
    at_level = build(noise=dict(alpha_bar=float(linear_alpha_bar()[299])))(copy.deepcopy(data))['inputs']
    assert torch.equal(at_step, at_level)
    pure = build(noise=dict(alpha_bar=0.0))(copy.deepcopy(data))['inputs']
    expected = linear_alpha_bar()[299].sqrt() * clean + (1 - linear_alpha_bar()[299]).sqrt() * pure
    torch.testing.assert_close(at_step, expected.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize('space', ['latent', 'image'])
def test_mixup_mixes_in_the_space_that_was_named(build, space):
    mixup = dict(augments=[dict(type='Mixup', alpha=0.8)])
    preprocessor, data = build(num_classes=2, batch_augments=mixup, mix_space=space), batch()
    images = (data['inputs'].flip(1).float() - 127.5) / 127.5
    codec = preprocessor.codec
    onehot = torch.eye(2)[[0, 1, 0]]

    def seeded_mix(x):
        np.random.seed(0)
        torch.manual_seed(0)
        return RandomBatchAugment(**mixup)(x, onehot)

    if space == 'latent':
        latents, scores = seeded_mix(codec.mode(codec.encode(images)))
    else:
        mixed, scores = seeded_mix(images)
        latents = codec.mode(codec.encode(mixed))
    np.random.seed(0)
    torch.manual_seed(0)
    out = preprocessor(data, training=True)
    torch.testing.assert_close(out['inputs'], latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.stack([s.gt_score for s in out['data_samples']]), scores)
    assert (scores - onehot).abs().max() > 0.01


def test_pixel_preset_only_normalises():
    preprocessor = MODELS.build(dict(type='LatentDataPreprocessor', vae='pixel', mean=[10, 20, 30], std=[2, 4, 5]))
    data = batch(size=16)
    rgb = data['inputs'].flip(1).float()
    expected = (rgb - torch.tensor([10.0, 20, 30]).view(3, 1, 1)) / torch.tensor([2.0, 4, 5]).view(3, 1, 1)
    torch.testing.assert_close(preprocessor(data, training=True)['inputs'], expected)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(vae='sd-f8d44'), "unknown VAE 'sd-f8d44'.*did you mean 'sd-f8d4'"),
        (dict(posterior='mean'), "posterior='mean' must be one of"),
        (dict(mix_space='latents'), "mix_space='latents' must be one of"),
        (dict(noise=dict(timestep=1001)), 'timestep=1001 is not a number of steps'),
        (dict(noise=dict(alpha_bar=1.5)), r'alpha_bar=1.5 must lie in \[0, 1\]'),
        (dict(noise=dict(alpha_bar=0.5, timestep=3)), 'exactly one'),
    ],
)
def test_bad_arguments_are_named(build, kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_inputs_of_another_vae_are_refused(build):
    with pytest.raises(ValueError, match=r"inputs have 32 channels, but VAE 'tiny' takes images \(3\), moments \(8\)"):
        build()(dict(inputs=torch.zeros(1, 32, 4, 4)))


def test_image_space_mixing_refuses_cached_latents(build):
    mixup = dict(augments=[dict(type='Mixup', alpha=0.8)])
    preprocessor = build(num_classes=2, batch_augments=mixup, mix_space='image')
    with pytest.raises(ValueError, match='needs images, got 8-channel'):
        preprocessor(dict(inputs=torch.zeros(1, 8, 4, 4)), training=True)


def test_the_vae_encodes_so_many_images_a_call(build, monkeypatch):
    preprocessor, calls = build(encode_batch_size=2), []
    encode = preprocessor.codec.network_encode
    monkeypatch.setattr(preprocessor.codec, 'network_encode', lambda images: calls.append(len(images)) or encode(images))
    out = preprocessor(batch(num=5))['inputs']
    assert out.shape == (5, 4, 4, 4) and sum(calls) >= 5 and max(calls) == 2
