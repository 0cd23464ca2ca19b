"""Batches are launched without waiting for a device, on the meta device: reading one of its tensors raises an error."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from fake_generator import FakeGenerator
from helpers.compiled_models import build
from helpers.small_training import Copies
from mmpretrain.registry import MODELS

from usp_mm.datasets import SampleRequests
from usp_mm.sampling import draw
from usp_mm.sampling.draw import sample_classes
from usp_mm.sampling.file import Progress, _sample_blocks
from usp_mm.sampling.parts import SampleParts

BATCHES, BATCH_SIZE, SIDE = 3, 2, 64
SAMPLERS = [
    ('DiT', dict(type='AncestralSampler', num_steps=2)),
    ('SiT', dict(type='SDESampler', num_steps=3)),
    ('SiT', dict(type='ODESampler', method='heun2', num_steps=3)),
]


class OnAnotherDevice:
    """In place of `OnHost`, which copies from a GPU: what was drawn arrives once all batches have been launched."""

    launched: list[list[tuple[tuple[int, ...], torch.dtype]]] = []
    all_launched = threading.Event()

    def __init__(self, device, encode):
        assert device.type == 'meta'
        self.launched.append([(tuple(values.shape), values.dtype) for values in encode()])
        if len(self.launched) == BATCHES:
            self.all_launched.set()

    def wait(self):
        assert self.all_launched.wait(60), 'the next batch waits for this one'
        self.tensors = [torch.full((BATCH_SIZE, SIDE, SIDE, 3), 7, dtype=torch.uint8), torch.ones(BATCH_SIZE, dtype=torch.bool)]


@pytest.fixture
def device(monkeypatch):
    monkeypatch.setattr(draw, 'OnHost', OnAnotherDevice)
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: nullcontext())  # which refuses the meta device
    OnAnotherDevice.launched.clear()
    OnAnotherDevice.all_launched.clear()
    return OnAnotherDevice


def generator(kind, sampler, vae):
    preprocessor = dict(type='LatentDataPreprocessor', vae=dict(name='tiny', path=str(vae)))
    interval = (300, 700) if kind == 'DiT' else (0.3, 0.7)
    model = build(kind, data_preprocessor=preprocessor, guidance=dict(scale=2.0, interval=interval))
    model.sampler = MODELS.build(sampler)
    model.data_preprocessor.codec.to('meta')
    return model.eval().to('meta')


@pytest.mark.parametrize(('kind', 'sampler'), SAMPLERS)
def test_a_batch_is_launched_before_the_one_before_it_has_arrived(kind, sampler, device, tmp_path, tiny_vae_folder):
    num = BATCHES * BATCH_SIZE
    model, parts = generator(kind, sampler, tiny_vae_folder), SampleParts(tmp_path, num, SIDE)
    requests, numbers = SampleRequests(num, 10, 'balanced', 0), list(range(num))
    with Copies() as copies, torch.no_grad():
        _sample_blocks(model, requests, parts, numbers, BATCH_SIZE, Progress(parts, numbers, 1), seed=0, sample_model=None)
    assert device.launched == [[((BATCH_SIZE, SIDE, SIDE, 3), torch.uint8), ((BATCH_SIZE,), torch.bool)]] * BATCHES
    assert [shape for shape in copies.shapes if shape] == [(BATCH_SIZE,), (BATCH_SIZE,)] * BATCHES  # numbers and classes
    assert not parts.missing() and (np.load(parts.path(5)) == 7).all()


def test_pictures_are_launched_before_any_has_arrived(device, tiny_vae_folder):
    model = generator('SiT', SAMPLERS[1][1], tiny_vae_folder)
    (images,) = sample_classes(model, [3], BATCHES * BATCH_SIZE, batch_size=BATCH_SIZE)
    assert len(device.launched) == BATCHES and images.shape == (BATCHES * BATCH_SIZE, SIDE, SIDE, 3)


def test_a_device_that_is_read_would_be_noticed(device, tiny_vae_folder):
    model = generator('SiT', SAMPLERS[1][1], tiny_vae_folder)
    latents = model.sample_latents(torch.arange(2), torch.arange(2))
    for read in (lambda: latents.cpu(), lambda: latents.isfinite().all().item(), lambda: latents[latents > 0]):
        with pytest.raises((NotImplementedError, RuntimeError)):
            read()


def test_an_image_that_broke_is_told_and_its_block_is_not_written(tmp_path):
    model, parts = FakeGenerator(None), SampleParts(tmp_path, 6, 8)
    model.broken = 3
    requests, progress = SampleRequests(6, 3, 'balanced', 0), Progress(parts, [], 1)
    with pytest.raises(ValueError, match=r'sample 3 \(class 0\) became NaN'):
        _sample_blocks(model, requests, parts, list(range(6)), 2, progress, seed=0, sample_model=None)
    assert parts.missing() == [2, 3, 4, 5]
