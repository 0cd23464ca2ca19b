import pytest
import torch
from helpers.probe_world import ProbeWorld
from mmengine.config import Config
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.functional import random
from usp_mm.functional.ddpm import linear_alpha_bar
from usp_mm.models.objectives import DDPMObjective, FlowObjective
from usp_mm.probing.features import block_features, check_time, load_frozen, noised


@pytest.fixture(scope='module')
def world(demo_data, tiny_vae_folder, tmp_path_factory):
    return ProbeWorld(tmp_path_factory.mktemp('probe'), demo_data, tiny_vae_folder)


@pytest.fixture
def latents():
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def load(world, name, **kwargs):
    return load_frozen(world.config(name), world.checkpoint(name), device='cpu', load_vae=False, **kwargs)


def latents_of(model):
    geometry = model.network.geometry
    shape = (3, geometry.channels, geometry.latent_size, geometry.latent_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize('name', ['dit', 'sit'])
def test_denoiser_features_are_its_hidden_states(world, name):
    model = load(world, name)
    x, t = latents_of(model), {'dit': 0, 'sit': 1.0}[name]
    assert model.t == t
    time, null = torch.full((3,), t), torch.full((3,), 10)
    _, hidden = model.network(x, time, null, return_hidden=[1, 2, 3, 4])
    found = block_features(model.network, x, [4, 1, 3], t)
    for k, features in zip([4, 1, 3], found, strict=True):
        torch.testing.assert_close(features, hidden[k].mean(1), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        block_features(model.network, x, [2], time)[0], block_features(model.network, x, [2], t)[0], atol=0, rtol=0
    )
    assert not torch.allclose(found[0], block_features(model.network, x, [4], t + 1 if name == 'dit' else 0.5)[0], atol=1e-3)


def test_encoder_features_are_its_outputs(world):
    model = load(world, 'usp')
    x = latents_of(model)
    encoder = MODELS.build(dict(type='USPViT', arch='tiny', vae='tiny', img_size=64, out_type='raw', out_indices=(0, 1, 2, 3)))
    encoder.load_state_dict(model.network.state_dict())
    outputs = encoder.eval()(x)
    for pool, expected in (('mean', [out[:, 1:].mean(1) for out in outputs]), ('cls', [out[:, 0] for out in outputs])):
        for found, out in zip(block_features(model.network, x, [1, 2, 3, 4], pool=pool), expected, strict=True):
            torch.testing.assert_close(found, out, atol=1e-6, rtol=0)
    encoder.out_type, encoder.out_indices = 'cls_token', (3,)
    torch.testing.assert_close(encoder(x)[0], block_features(encoder, x, [4], pool='cls')[0], atol=1e-6, rtol=0)
    assert (encoder.out_type, encoder.out_indices) == ('cls_token', (3,))


def test_classifier_and_pretraining_configs_have_one_encoder(world):
    vit, usp = (
        load_frozen(world.config(name), world.checkpoint('usp'), device='cpu', load_vae=False) for name in ('vit', 'usp')
    )
    x = latents_of(usp)
    assert torch.equal(block_features(vit.network, x, [4])[0], block_features(usp.network, x, [4])[0])


def test_average_weights_by_default(world):
    state = torch.load(world.checkpoint('sit'), weights_only=True)['state_dict']
    name = 'blocks.0.attn.qkv.weight'
    assert not torch.equal(state[f'denoiser.{name}'], state[f'denoiser_ema.module.{name}'])
    for weights, prefix in ((None, 'denoiser_ema.module.'), ('ema', 'denoiser_ema.module.'), ('model', 'denoiser.')):
        model = load(world, 'sit', weights=weights)
        assert torch.equal(model.network.state_dict()[name], state[prefix + name])
        assert model.weights == (weights or 'ema')
        assert not model.network.training
        assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_the_older_name_of_raw_weights(world):
    with pytest.warns(FutureWarning, match="'orig', of weights, is now 'model'"):
        model = load(world, 'sit', weights='orig')
    assert model.weights == 'model'


def test_noise_as_in_training_and_by_sample(latents):
    samples, epochs = torch.tensor([5, 0, 7]), torch.zeros(3, dtype=torch.int64)
    noise = random.normal(samples, epochs, (4, 16, 16), seed=9, stream='latent_noise')
    alpha_bar = float(linear_alpha_bar()[400])
    found = noised(DDPMObjective(), latents, 400, samples, epochs, seed=9)
    torch.testing.assert_close(found, alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise, atol=1e-5, rtol=0)
    found = noised(FlowObjective(), latents, 0.3, samples, epochs, seed=9)
    torch.testing.assert_close(found, 0.3 * latents + 0.7 * noise, atol=1e-5, rtol=0)
    alone = noised(FlowObjective(), latents[1:2], 0.3, samples[1:2], epochs[1:2], seed=9)
    torch.testing.assert_close(alone[0], found[1], atol=1e-6, rtol=0)
    for objective, clean in ((DDPMObjective(), 0), (FlowObjective(), 1.0), (FlowObjective('vp'), 1.0)):
        assert torch.equal(noised(objective, latents, clean, samples, epochs, seed=9), latents)


def test_a_batch_gives_features_at_its_time(world):
    model = load(world, 'sit', t=0.25, seed=4)
    x = latents_of(model)
    batch = dict(inputs=x, data_samples=[DataSample(metainfo=dict(sample_idx=i)).set_gt_label(i) for i in (8, 2, 5)])
    (features,), labels = model(batch, [3])
    assert labels.tolist() == [8, 2, 5]
    noise = random.normal(labels, torch.zeros_like(labels), tuple(x.shape[1:]), seed=4, stream='latent_noise')
    expected = block_features(model.network, 0.25 * x + 0.75 * noise, [3], 0.25)[0]
    torch.testing.assert_close(features, expected, atol=1e-5, rtol=0)
    # the same samples of the other split have other noise, and without noise the split is all the same
    assert not torch.allclose(model(batch, [3], split=1)[0][0], features, atol=1e-3)
    clean = load(world, 'sit')
    assert torch.equal(clean(batch, [3], split=1)[0][0], clean(batch, [3])[0][0])
    with pytest.raises(ValueError, match='a probe needs labelled data'):
        model(dict(inputs=x, data_samples=[DataSample()] * 3), [3])


@pytest.mark.parametrize(
    ('objective', 't', 'message'),
    [
        (DDPMObjective(), 1000, 't=1000 is out of range: a DiT takes whole steps from 0'),
        (DDPMObjective(), -1, 't=-1 is out of range'),
        (DDPMObjective(), 0.5, 't=0.5 is out of range'),
        (FlowObjective(), 1.01, 't=1.01 is out of range: a SiT takes times from 0'),
        (FlowObjective(), float('nan'), 't=nan is out of range'),
        (None, 0, 't=0: an encoder has no time'),
    ],
)
def test_times_out_of_range(objective, t, message):
    with pytest.raises(ValueError, match=message):
        check_time(objective, t)


@pytest.mark.parametrize(
    ('name', 'call', 'message'),
    [
        ('usp', dict(layers=[5]), 'layer 5 is not there: the model has blocks 1 to 4'),
        ('usp', dict(layers=[0]), 'layer 0 is not there'),
        ('usp', dict(layers=[]), 'no layer'),
        ('usp', dict(layers=[1], t=0), 'an encoder has no time'),
        ('usp', dict(layers=[1], pool='max'), "pool='max' must be one of"),
        ('dit', dict(layers=[1], t=0, pool='cls'), "pool='cls': a DiT has no class token"),
        ('sit', dict(layers=[1]), 'SiT needs a time'),
    ],
)
def test_bad_requests(world, name, call, message):
    model = load(world, name)
    with pytest.raises(ValueError, match=message):
        block_features(model.network, latents_of(model), **call)


@pytest.mark.parametrize(
    ('config', 'checkpoint', 'kwargs', 'message'),
    [
        ('usp', 'sit', {}, r"sit\.pth' does not fit the config: no encoder"),
        ('dit', 'usp', {}, r"usp\.pth' does not fit the config: no DiT or SiT in it"),
        ('usp', 'usp', dict(weights='ema'), "weights='ema': an encoder has one set of weights"),
        ('sit', 'sit', dict(weights='best'), "weights='best' must be one of"),
        ('sit', 'sit', dict(t=2.0), 't=2.0 is out of range'),
        ('sit', 'sit', dict(pool='cls'), 'no class token'),
    ],
)
def test_bad_models(world, config, checkpoint, kwargs, message):
    with pytest.raises(ValueError, match=message):
        load_frozen(world.config(config), world.checkpoint(checkpoint), device='cpu', load_vae=False, **kwargs)


def test_other_checkpoints_and_configs(world, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'none\.pth is not a file'):
        load_frozen(world.config('usp'), tmp_path / 'none.pth')
    state = torch.load(world.checkpoint('sit'), weights_only=True)['state_dict']
    torch.save({k: v for k, v in state.items() if not k.startswith('denoiser_ema')}, tmp_path / 'orig.pth')
    with pytest.raises(ValueError, match=r'has no averaged \(EMA\) weights'):
        load_frozen(world.config('sit'), tmp_path / 'orig.pth', load_vae=False)
    smaller = world.config('sit')
    smaller.model.denoiser.num_classes = 7
    with pytest.raises(ValueError, match=r'(?s)does not fit the config.*y_embedder'):
        load_frozen(smaller, world.checkpoint('sit'), load_vae=False)
    with pytest.raises(ValueError, match=r"model\.type 'ImageClassifier' has no blocks to probe"):
        load_frozen(Config(dict(model=dict(type='ImageClassifier'))), tmp_path / 'none.pth')


def test_a_network_whose_time_runs_to_the_noise_is_probed_at_its_own_time_of_clean_data(world):
    from usp_mm.datasets import LatentCacheDataset
    from usp_mm.datasets.latent_cache import collate_latents

    cfg = world.config('sit')
    cfg.model.objective.time_convention = 'noise_at_1'
    model = load_frozen(cfg, world.checkpoint('sit'), device='cpu', load_vae=False)
    batch = collate_latents(LatentCacheDataset(str(world.caches / 'val'), flip=False).__getitems__([0, 1]))
    (found,), _ = model(batch, [2])
    latents = model.preprocessor(batch)['inputs']
    assert model.t == 1.0
    torch.testing.assert_close(found, block_features(model.network, latents, [2], 0.0)[0], rtol=0, atol=1e-6)
    assert not torch.allclose(found, block_features(model.network, latents, [2], 1.0)[0], atol=1e-3)
