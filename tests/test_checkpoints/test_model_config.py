"""Configs of other projects' files, from names and shapes: what is built of them takes the weights strictly."""

import pytest
import torch
from helpers.checkpoint_files import ARCH, NUM_CLASSES, official, save_official
from mmpretrain.registry import MODELS

from usp_mm.checkpoints.model_config import Given, model_config
from usp_mm.checkpoints.sources import read

HEADS = dict(num_heads=3)
BOTH = dict(num_heads=3, decoder_heads=4)


def config_of(path, kind=None, **given):
    return model_config(read(path, kind), Given(**given))


@pytest.fixture
def file(tmp_path):
    def save(kind, **kwargs):
        save_official(kind, tmp_path / 'net.pth', **kwargs)
        return tmp_path / 'net.pth'

    return save


@pytest.mark.parametrize('kind', ['usp-pretrain', 'mae', 'timm', 'usp-dit', 'usp-sit', 'dit', 'sit', 'repa', 'lightningdit'])
def test_a_network_of_the_config_has_the_files_names_and_shapes(file, kind):
    arch = BOTH if kind in ('usp-pretrain', 'mae') else HEADS
    path = file(kind)
    found = config_of(path, kind, arch=arch)
    found['data_preprocessor']['load_vae'] = False
    with torch.device('meta'):
        state = MODELS.build(found).state_dict()
    (weights, *_) = read(path, kind).sets.values()
    prefixes = ('backbone.', 'neck.', 'head.layers.', 'denoiser.')
    ours = {name.removeprefix(next(p for p in prefixes if name.startswith(p))): x.shape for name, x in state.items()}
    assert ours == {name: entry.value.shape for name, entry in weights.items()}


def test_facts_of_an_encoder(file):
    found = config_of(file('usp-pretrain'), arch=BOTH)
    assert found['backbone'] == dict(type='USPViT', arch=dict(ARCH), img_size=64, patch_size=2)
    assert found['data_preprocessor'] == dict(type='LatentDataPreprocessor', vae='sd-f8d4')


def test_facts_of_a_classifier(file):
    found = config_of(file('timm'), arch=HEADS)
    assert found['head']['num_classes'] == NUM_CLASSES
    assert (found['backbone']['out_type'], found['backbone']['final_norm']) == ('cls_token', True)


def test_pixels_are_normalised_as_mae_does(file):
    found = config_of(file('mae'), arch=BOTH)['data_preprocessor']
    assert (found['vae'], found['mean'], found['std']) == ('pixel', [123.675, 116.28, 103.53], [58.395, 57.12, 57.375])


@pytest.mark.parametrize(
    ('kind', 'network', 'norms', 'sigma', 'objective', 'sampler'),
    [
        ('usp-dit', 'DiT', True, True, 'DDPMObjective', 'AncestralSampler'),
        ('dit', 'DiT', False, True, 'DDPMObjective', 'AncestralSampler'),
        ('usp-sit', 'SiT', True, True, 'FlowObjective', 'SDESampler'),
        ('sit', 'SiT', False, True, 'FlowObjective', 'SDESampler'),
        ('repa', 'SiT', False, False, 'FlowObjective', 'SDESampler'),
        ('lightningdit', 'SiT', True, True, 'FlowObjective', 'ODESampler'),
    ],
)
def test_facts_of_a_generator(file, kind, network, norms, sigma, objective, sampler):
    found = config_of(file(kind), kind, arch=HEADS)
    denoiser = found['denoiser']
    assert (denoiser['type'], denoiser['norm_affine'], denoiser['learn_sigma']) == (network, norms, sigma)
    assert (denoiser['num_classes'], denoiser['class_dropout'], denoiser['img_size']) == (NUM_CLASSES, 0.1, 64)
    assert (found['objective']['type'], found['sampler']['type']) == (objective, sampler)
    assert found['objective'].get('time_convention') == ('noise_at_1' if kind == 'repa' else None)
    if kind == 'lightningdit':
        assert denoiser['block'] == dict(norm='rms', mlp='swiglu', rope=True, qk_norm=True)


def test_a_preset_is_told_by_width_and_depth(tmp_path):
    network = MODELS.build(dict(type='DiT', arch='tiny', img_size=64, num_classes=3))
    torch.save(dict(model=network.state_dict()), tmp_path / 'net.pth')
    assert config_of(tmp_path / 'net.pth', 'usp-dit')['denoiser']['arch'] == 'tiny'


def test_without_a_no_class_row(file):
    found = config_of(file('usp-dit'), arch=HEADS, num_classes=NUM_CLASSES + 1)['denoiser']
    assert (found['num_classes'], found['class_dropout']) == (NUM_CLASSES + 1, 0.0)
    with pytest.raises(ValueError, match='num_classes=7: the label embedding has 11 rows'):
        config_of(file('usp-dit'), arch=HEADS, num_classes=7)


def test_the_number_of_heads_has_to_be_given(file):
    with pytest.raises(ValueError, match=r'2 blocks of width 48 are no preset .*: give arch=dict\(num_heads=…\)'):
        config_of(file('usp-dit'))
    with pytest.raises(ValueError, match=r'decoder \[2, 32\] are no preset .*: give arch=dict\(num_heads=…, decoder_heads=…\)'):
        config_of(file('usp-pretrain'))


def test_a_vae_of_other_channels_is_refused(file):
    with pytest.raises(ValueError, match="vae='kl-f16d16' has 16 latent channels, the network of the file 4"):
        config_of(file('usp-dit'), arch=HEADS, vae='kl-f16d16')
    assert config_of(file('usp-dit'), arch=HEADS, vae='tiny')['data_preprocessor']['vae'] == 'tiny'


def test_a_vae_is_no_model(tmp_path):
    torch.save(official('kl16'), tmp_path / 'kl16.ckpt')
    with pytest.raises(ValueError, match='kl16 is a VAE and not a model'):
        config_of(tmp_path / 'kl16.ckpt')
