"""LatentDiffusionGenerator: training, averaging, sampling, and what it refuses."""

import warnings

import pytest
import torch
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.datasets import EpochIndex

SMALL = dict(embed_dims=32, depth=2, num_heads=2)
PARTS = {
    'sit': dict(
        denoiser=dict(type='SiT', arch=SMALL, img_size=64, num_classes=10),
        objective=dict(type='FlowObjective'),
        sampler=dict(type='SDESampler', num_steps=4),
    ),
    'dit': dict(
        denoiser=dict(type='DiT', arch=SMALL, img_size=64, num_classes=10),
        objective=dict(type='DDPMObjective'),
        sampler=dict(type='AncestralSampler', num_steps=4),
    ),
}
kinds = pytest.mark.parametrize('kind', sorted(PARTS))


def merged(parts, changes):
    changes = {key: {**parts.get(key, {}), **value} if isinstance(value, dict) else value for key, value in changes.items()}
    return {**parts, **changes}


@pytest.fixture
def build(tiny_vae_folder):
    def build(kind='sit', seed=0, **changes):
        preprocessor = dict(vae=dict(name='tiny', path=str(tiny_vae_folder)))
        torch.manual_seed(seed)
        cfg = dict(type='LatentDiffusionGenerator', data_preprocessor=preprocessor, **merged(PARTS[kind], changes))
        model = MODELS.build(cfg)
        model.init_weights()
        for parameter in model.parameters():  # adaLN-Zero would hide everything
            if parameter.ndim < 3:
                torch.nn.init.normal_(parameter.data, std=0.05)
        model._sync_ema()
        return model

    return build


def training_batch(num=4, epoch=2, seed=5, first=0):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(first + num, 4, 8, 8, generator=generator)[first:]
    samples = []
    for i in range(first, first + num):
        sample = DataSample().set_gt_label(i % 10)
        sample.set_field(EpochIndex(i, epoch, seed), 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return dict(inputs=latents, data_samples=samples)


@kinds
def test_loss_is_addressable_and_one_batch_is_the_mean_of_its_halves(build, kind):
    model = build(kind)
    whole = model.loss(**training_batch())
    halves = [model.loss(**training_batch(2, first=first)) for first in (0, 2)]
    assert set(whole) >= ({'loss', 'mse', 'vb'} if kind == 'dit' else {'loss'})
    for key, value in whole.items():
        torch.testing.assert_close(value, (halves[0][key] + halves[1][key]) / 2, rtol=1e-5, atol=1e-6)
    assert not torch.equal(model.loss(**training_batch(epoch=3))['loss'], whole['loss'])
    assert not torch.equal(model.loss(**training_batch(seed=6))['loss'], whole['loss'])


def test_dropped_classes_are_a_tenth(build, monkeypatch):
    model, seen = build(), []
    forward = model.denoiser.forward
    monkeypatch.setattr(model.denoiser, 'forward', lambda x, t, y: seen.append(y) or forward(x, t, y))
    model.loss(**training_batch(2000))
    dropped = (seen[0] == 10).float().mean()
    assert 0.08 < dropped < 0.12
    assert torch.equal(seen[0][seen[0] != 10], (torch.arange(2000) % 10)[seen[0] != 10])


def test_average_follows_the_formula(build):
    model = build(ema=dict(momentum=0.25))
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.denoiser.parameters(), lr=0.1))
    expected = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    for _ in range(3):
        model.train_step(training_batch(), optim_wrapper)
        model.update_ema()
        for name, value in model.denoiser.state_dict().items():
            expected[name].lerp_(value, 0.25)
    for name, value in model.denoiser_ema.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7)
    assert not any(p.requires_grad for p in model.denoiser_ema.parameters())
    assert {key.split('.')[0] for key in model.state_dict()} == {'denoiser', 'denoiser_ema'}


@kinds
@pytest.mark.parametrize('scale', [1.0, 2.0])
def test_a_sample_depends_on_seed_number_and_class_alone(build, kind, scale):
    model = build(kind, guidance=dict(scale=scale))
    index, label = torch.arange(5) + 7, torch.tensor([0, 1, 2, 3, 9])
    whole = model.sample(index, label, seed=3)
    assert whole.dtype == torch.uint8 and whole.shape == (5, 3, 64, 64)
    parts = [model.sample(i, y, seed=3) for i, y in zip(index.split(2), label.split(2), strict=True)]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(model.sample([11], [9], seed=3)[0], whole[4])
    assert not torch.equal(model.sample([11], [9], seed=4)[0], whole[4])
    assert not torch.equal(model.sample([11], [8], seed=3)[0], whole[4])


def test_guidance_by_hand(build):
    model = build()
    x, t, label = torch.randn(2, 4, 8, 8), torch.full((2,), 0.5), torch.tensor([1, 2])
    network = model.denoiser.eval()
    with torch.no_grad():
        cond, uncond = network(x, t, label), network(x, t, torch.tensor([10, 10]))
        model.guidance.scale = 3.0
        out = model.guidance.denoise(network, label, model.objective)(x, t)
        torch.testing.assert_close(out[:, :3], uncond[:, :3] + 3 * (cond - uncond)[:, :3], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(out[:, 3:], cond[:, 3:], atol=1e-6, rtol=1e-5)
        model.guidance.channels = None
        out = model.guidance.denoise(network, label, model.objective)(x, t)
        torch.testing.assert_close(out, uncond + 3 * (cond - uncond), atol=1e-5, rtol=1e-5)
        model.guidance.interval = (0.6, 1.0)
        torch.testing.assert_close(model.guidance.denoise(network, label, model.objective)(x, t), cond, atol=1e-6, rtol=1e-5)


def test_ema_and_orig_sample_their_own_weights(build):
    model = build()
    with torch.no_grad():
        model.denoiser.final_layer.linear.bias += 1
    ema, orig = (model.sample_latents([0], [1], sample_model=name) for name in ('ema', 'model'))
    assert not torch.equal(ema, orig) and torch.equal(model.sample_latents([0], [1]), ema)
    assert model.describe('model')['sample_model'] == 'model'


def test_predict_answers_requests_in_mmagics_form(build):
    model = build().eval()
    request = dict(index=torch.tensor([4, 9]), label=torch.tensor([2, 3]), seed=torch.tensor([5, 5]))
    results = model.val_step(dict(inputs=request))
    images = model.sample([4, 9], [2, 3], seed=5)
    for result, image, i, y in zip(results, images, (4, 9), (2, 3), strict=True):
        assert torch.equal(result.fake_img, image.flip(0).float())
        assert result.sample_idx == i and result.gt_label.label.item() == y
    by_count = model.val_step(dict(inputs=dict(num_batches=3, sample_model='model')))
    assert [result.sample_idx for result in by_count] == [0, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter('error')  # mmagic's own metrics call these weights 'orig', for good
        as_mmagic = model.val_step(dict(inputs=dict(num_batches=3, sample_model='orig')))
    assert all(torch.equal(one.fake_img, other.fake_img) for one, other in zip(as_mmagic, by_count, strict=True))
    by_labels = model.val_step(dict(inputs=dict(num_batches=32, labels=[1, 1])))
    assert [result.gt_label.label.item() for result in by_labels] == [1, 1]


def test_decoding_rounds_as_official_code_does(build):
    model = build()
    latents = torch.randn(3, 4, 8, 8)
    images = model.data_preprocessor.codec.decode(latents[:1])
    expected = (127.5 * images + 128).clamp(0, 255).floor()
    assert torch.equal(model.decode(latents)[:1].float(), expected)


def test_bad_input(build):
    model = build()
    with pytest.raises(ValueError, match='a generator trains on labelled data'):
        model.loss(torch.zeros(1, 4, 8, 8), [DataSample()])
    with pytest.raises(ValueError, match='label 11 is no class: the generator has 10, from 0'):
        model.sample([0], [11])
    with pytest.raises(ValueError, match="sample_model='emma' must be one of"):
        model.sample([0], [1], sample_model='emma')
    with pytest.raises(ValueError, match="sample_model='ema', but the generator was built with ema=None"):
        build(ema=None)
    assert build(ema=None, sample_model='model').denoiser_ema is None
    with pytest.warns(FutureWarning, match="'orig', of weights, is now 'model'"):
        assert build(ema=None, sample_model='orig').sample_model == 'model'
    with pytest.raises(ValueError, match=r'FlowObjective needs 4 output channels, DiT has 8'):
        build('dit', objective=dict(type='FlowObjective'))
    with pytest.raises(ValueError, match=r'guidance scale=2.0 needs a "no class" label, but denoiser.class_dropout is 0'):
        build(guidance=dict(scale=2.0), denoiser=dict(class_dropout=0.0))
    with pytest.raises(ValueError, match="the denoiser is built for VAE 'kl-f16d16' but the data preprocessor"):
        build(denoiser=dict(vae='kl-f16d16'))
    with pytest.raises(ValueError, match=r'guidance interval=.*low <= high'):
        build(guidance=dict(interval=(1, 0)))
    with pytest.raises(ValueError, match='decode_batch_size=0'):
        build(decode_batch_size=0)


def test_the_vae_decodes_so_many_images_a_call(build, monkeypatch):
    model, calls = build(decode_batch_size=2), []
    decode = model.data_preprocessor.codec.decode
    monkeypatch.setattr(model.data_preprocessor.codec, 'decode', lambda latents: calls.append(len(latents)) or decode(latents))
    assert model.decode(torch.zeros(5, 4, 8, 8)).shape == (5, 3, 64, 64) and calls == [2, 2, 1]


def test_a_compiled_network_gives_the_same_numbers_and_names(build):
    plain, compiled = build(), build(compile=dict(backend='eager', fullgraph=True))
    torch.testing.assert_close(compiled.loss(**training_batch())['loss'], plain.loss(**training_batch())['loss'])
    assert torch.equal(compiled.sample([1, 2], [3, 4]), plain.sample([1, 2], [3, 4]))
    assert list(compiled.state_dict()) == list(plain.state_dict())


@kinds
def test_bfloat16_autocast_keeps_the_loss_in_float32(build, kind):
    model = build(kind)
    exact = model.loss(**training_batch())['loss']
    with torch.autocast('cpu', torch.bfloat16):
        found = model.loss(**training_batch())['loss']
    assert found.dtype == torch.float32 and not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0)


def test_bfloat16_sampling_is_close_and_said(build):
    exact, rough = build(), build(sample_dtype='bfloat16')
    a, b = (model.sample_latents([0, 1], [2, 3]) for model in (exact, rough))
    assert not torch.equal(a, b) and b.dtype == torch.float32
    torch.testing.assert_close(a, b, rtol=0, atol=0.1 * float(a.std()))
    assert rough.describe()['sample_dtype'] == 'bfloat16'


def test_step_noise_is_drawn_ahead_without_changing(build):
    from usp_mm.functional import random
    from usp_mm.models.generator import _StepNoise

    index = torch.tensor([3, 2**40])
    noise = _StepNoise(index, (4, 8, 8), seed=5)
    for step in (0, 1, 9, 2, 17, 16):
        expected = random.normal(index, torch.full_like(index, step), (4, 8, 8), seed=5, stream='step_noise')
        assert torch.equal(noise(step), expected)


@pytest.mark.parametrize('scale', [1.0, 2.0])
@pytest.mark.parametrize(
    'sampler',
    [
        *(dict(type='ODESampler', method=method, num_steps=4) for method in ('dopri5', 'euler', 'heun2')),
        *(dict(type='SDESampler', method=method, num_steps=4) for method in ('euler', 'heun')),
        dict(type='AncestralSampler', num_steps=4),
        dict(type='DDIMSampler', num_steps=4),
    ],
    ids=lambda sampler: sampler['type'] + sampler.get('method', ''),
)
def test_every_sampler_names_the_sample_of_diverged_weights(build, sampler, scale):
    """Also where the runner asks, in validation and tests."""
    kind = 'sit' if sampler['type'] in ('ODESampler', 'SDESampler') else 'dit'
    model = build(kind, guidance=dict(scale=scale))
    model.sampler = MODELS.build(sampler)
    model.denoiser_ema.module.y_embedder.embedding_table.weight.data[4] = float('nan')  # of one class alone
    with pytest.raises(ValueError, match=r'sample 8 \(class 4\) became NaN or infinite: check that the training did not'):
        model(dict(index=torch.tensor([7, 8]), label=torch.tensor([3, 4])), mode='predict')
