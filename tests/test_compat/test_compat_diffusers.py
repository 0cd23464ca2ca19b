"""Patches of diffusers: the pipeline that it lists, and the times of its DiT."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from usp_mm.compat import diffusers


def test_a_pipeline_that_diffusers_has_is_left_alone(monkeypatch):
    module = ModuleType('diffusers.pipelines.latent_diffusion')
    module.LDMSuperResolutionPipeline = 'real'
    monkeypatch.setitem(sys.modules, module.__name__, module)
    diffusers._add_listed_pipeline(module)
    assert module.LDMSuperResolutionPipeline == 'real'


@pytest.fixture
def logged(monkeypatch):
    """What the current logger is told from here on, by a process that has not yet said anything."""
    said = []
    diffusers._say_once.cache_clear()
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', said.append)
    yield said
    diffusers._say_once.cache_clear()


def test_times_of_diffusers_dit_are_corrected_with_one_line_in_the_log(logged, monkeypatch):
    from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings

    monkeypatch.delenv('USP_DIFFUSERS_TIMES', raising=False)
    assert logged == []
    for _ in range(2):
        times = CombinedTimestepLabelEmbeddings(3, 8).time_proj
        expected = torch.exp(-np.log(10000) * torch.arange(128) / 128)
        torch.testing.assert_close(times(torch.tensor([1.0]))[0, 128:], expected.sin().float(), rtol=0, atol=1e-6)
        assert len(logged) == 1
    assert '10000^(-k/128) for 10000^(-k/127); USP_DIFFUSERS_TIMES=off leaves it as it is' in logged[0]


def test_times_of_diffusers_dit_are_left_alone_if_asked(logged, monkeypatch):
    from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings

    monkeypatch.setenv('USP_DIFFUSERS_TIMES', 'off')
    times = CombinedTimestepLabelEmbeddings(3, 8).time_proj
    expected = torch.exp(-np.log(10000) * torch.arange(128) / 127)
    torch.testing.assert_close(times(torch.tensor([1.0]))[0, 128:], expected.sin().float(), rtol=0, atol=1e-6)
    assert logged == []
    monkeypatch.setenv('USP_DIFFUSERS_TIMES', 'false')
    with pytest.raises(ValueError, match=r"USP_DIFFUSERS_TIMES='false' must be 'on' or 'off'"):
        CombinedTimestepLabelEmbeddings(3, 8)
