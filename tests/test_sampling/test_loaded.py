"""What is known of a generator goes with it, and its attributes can still be had of it for a while."""

import copy
import dataclasses

import pytest
import torch
from fake_generator import FakeGenerator

from usp_mm.apis import LoadedGenerator
from usp_mm.sampling.loaded import as_loaded


@pytest.fixture
def loaded(tmp_path):
    return FakeGenerator(tmp_path / 'iter_1.pth').loaded


def test_any_generator_will_do(loaded):
    assert as_loaded(loaded) is loaded
    bare = as_loaded(loaded.model)
    assert bare.model is loaded.model and (bare.config, bare.checkpoint, bare.classes, bare.weights) == (None,) * 4


def test_the_file_is_that_of_the_weights_until_they_are_written_to(loaded, tmp_path):
    loaded.model.to(torch.float64)
    assert loaded.weights == loaded.checkpoint == tmp_path / 'iter_1.pth'
    with torch.no_grad():
        loaded.model.weight += 1
    assert loaded.weights is None and loaded.checkpoint == tmp_path / 'iter_1.pth'
    assert dataclasses.replace(loaded).weights == tmp_path / 'iter_1.pth', 'who says so anew'


def test_attributes_of_the_model_come_with_a_warning(loaded):
    with pytest.warns(FutureWarning, match=r'returns a LoadedGenerator: take `sample_latents` of its `model`'):
        latents = loaded.sample_latents(torch.tensor([1]), torch.tensor([2]))
    assert torch.equal(latents, loaded.model.sample_latents(torch.tensor([1]), torch.tensor([2])))
    with pytest.raises(AttributeError, match='nothing_like_it'):
        _ = loaded.nothing_like_it
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.steps = 3
    assert isinstance(copy.copy(loaded), LoadedGenerator) and copy.copy(loaded).model is loaded.model
