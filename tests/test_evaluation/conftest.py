"""Inception's weights, as torch-fidelity stores them, but drawn at random."""

import io
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope='session')
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Random(FeatureExtractorInceptionV3):
        def load_state_dict(self, *args, **kwargs):
            """Keep the initial weights."""

    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    torch.manual_seed(0)
    network = Random('random', ['2048'], feature_extractor_weights_path=empty)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # so that images differ in their features,
    torch.nn.init.normal_(network.fc.weight)  # and in their classes
    path = tmp_path_factory.mktemp('inception') / 'weights.pth'
    torch.save(network.state_dict(), path)
    return path


@pytest.fixture(scope='session')
def inception(inception_weights):
    from usp_mm.evaluation import InceptionFeatures

    return InceptionFeatures(inception_weights)


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was warned of."""
    from mmengine.logging import MMLogger

    messages: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, message: messages.append(message))
    return messages
