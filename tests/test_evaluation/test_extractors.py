import shutil

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from torch import nn

from usp_mm.evaluation import ClassifierFeatures, PixelFeatures, TimmFeatures, features_of
from usp_mm.evaluation.extractors import extract_batch
from usp_mm.registry import MODELS
from usp_mm.vaes import build_codec

CLASSIFIER = dict(
    type='ImageClassifier',
    backbone=dict(type='ResNet', depth=18),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=512),
    data_preprocessor=dict(mean=[10.0, 20.0, 30.0], std=[50.0, 60.0, 70.0], to_rgb=True),
)


@pytest.fixture(scope='module')
def photographs():
    return torch.randint(0, 256, (5, 3, 24, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    """Config file, checkpoint and model."""
    from mmpretrain import get_model

    folder = tmp_path_factory.mktemp('classifier')
    Config(dict(model=CLASSIFIER)).dump(folder / 'net.py')
    model = get_model(str(folder / 'net.py'))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), folder / 'net.pth')
    return str(folder / 'net.py'), folder / 'net.pth', model


def test_pixels_are_averages(photographs):
    features = MODELS.build(dict(type='PixelFeatures', size=4))(photographs)
    expected = photographs.numpy().reshape(5, 3, 4, 6, 4, 8).mean((3, 5)) / 255
    np.testing.assert_allclose(features.numpy(), expected.reshape(5, 48), rtol=1e-5)


def test_timm(photographs, tmp_path):
    model = timm.create_model('test_resnet', num_classes=1000).eval()
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    extractor = TimmFeatures('test_resnet', tmp_path / 'weights.pth')
    side = model.pretrained_cfg['input_size'][-1]
    square = torch.full((1, 3, side, side), 51, dtype=torch.uint8)
    normalised = (0.2 - torch.tensor(model.pretrained_cfg['mean'])) / torch.tensor(model.pretrained_cfg['std'])
    with torch.no_grad():
        expected = model.forward_head(
            model.forward_features(normalised.view(1, 3, 1, 1).expand(1, 3, side, side)), pre_logits=True
        )
    torch.testing.assert_close(extractor(square), expected, rtol=1e-4, atol=1e-5)
    assert extractor(photographs).shape == (5, expected.shape[1])
    with pytest.raises(ValueError, match="timm has no model 'no_such'"):
        TimmFeatures('no_such', tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match=r"weights\.pth' does not fit timm's 'test_vit'"):
        TimmFeatures('test_vit', tmp_path / 'weights.pth')


def test_classifier(photographs, classifier):
    config, checkpoint, model = classifier
    extractor = ClassifierFeatures(config, checkpoint, img_size=32)
    square = photographs[:, :, :, :24]
    kept = ClassifierFeatures(config, checkpoint)
    mean, std = torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1), torch.tensor([50.0, 60.0, 70.0]).view(3, 1, 1)
    with torch.no_grad():
        (maps,) = model.backbone((square.float() - mean) / std)
    torch.testing.assert_close(kept(square), maps.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert extractor(photographs).shape == (5, 512)
    backbone = ClassifierFeatures(config, checkpoint, stage='backbone')
    torch.testing.assert_close(backbone(square), kept(square), rtol=1e-5, atol=1e-6)
    assert len({extractor.identity, kept.identity, backbone.identity}) == 3


def test_classifier_of_other_weights(classifier, tmp_path):
    config, checkpoint, model = classifier
    weights = model.state_dict()
    del weights['head.fc.bias']
    torch.save(weights, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r"part\.pth' does not fit the model of.*head\.fc\.bias"):
        ClassifierFeatures(config, tmp_path / 'part.pth')
    with pytest.raises(FileNotFoundError, match='no config at'):
        ClassifierFeatures(str(tmp_path / 'none.py'), checkpoint)


def test_identity_of_a_latent_classifier_names_its_vae(tiny_vae_folder, tmp_path):
    """Its weights are not in the checkpoint."""
    from safetensors.torch import load_file, save_file

    other = tmp_path / 'other'
    shutil.copytree(tiny_vae_folder, other)
    (file,) = other.glob('*.safetensors')
    weights = load_file(file)
    first = next(iter(sorted(weights)))
    save_file({**weights, first: weights[first] + 1}, file)
    identities = []
    for vae in (tiny_vae_folder, other):
        model = dict(
            type='USPClassifier',
            backbone=dict(type='USPViT', arch=dict(embed_dims=32, depth=2, num_heads=2), img_size=64, out_type='avg_featmap'),
            head=dict(type='LinearClsHead', num_classes=3),
            data_preprocessor=dict(vae=dict(name='tiny', path=str(vae))),
        )
        Config(dict(model=model, custom_imports=dict(imports=['usp_mm.models']))).dump(tmp_path / 'net.py')
        if not identities:
            from mmpretrain import get_model

            torch.save(get_model(str(tmp_path / 'net.py')).state_dict(), tmp_path / 'net.pth')
        identities.append(ClassifierFeatures(str(tmp_path / 'net.py'), tmp_path / 'net.pth').identity)
    hashes = [build_codec('tiny', path=vae).weight_hash for vae in (tiny_vae_folder, other)]
    assert [f'VAE tiny in torch.float32, weights sha256 {h}' for h in hashes] == [i.split(', ', 3)[3] for i in identities]
    assert hashes[0] != hashes[1] and identities[0].split(', VAE')[0] == identities[1].split(', VAE')[0]


def test_features_of_images_in_memory(photographs):
    whole = features_of(photographs, PixelFeatures(4), batch_size=2)
    torch.testing.assert_close(whole['features'], PixelFeatures(4)(photographs), rtol=0, atol=0)


class Gives(nn.Module):
    """The same features whatever the images."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, x):
        return self.features


def test_bad_images_and_features(photographs):
    with pytest.raises(ValueError, match=r'images are torch\.float32\[5, 3, 24, 32\]: expected uint8'):
        extract_batch(PixelFeatures(), photographs.float())
    features = torch.zeros(5, 2)
    features[1, 0] = float('nan')
    with pytest.raises(ValueError, match=r'NaN or infinity for images \[1\]'):
        extract_batch(Gives(features), photographs)
    with pytest.raises(ValueError, match=r"'features' of shape \[5, 2, 2\] for 5 images"):
        extract_batch(Gives(torch.zeros(5, 2, 2)), photographs)
