"""model.tf32: the process's setting while a generator trains and samples on a GPU, and what it was after."""

from types import SimpleNamespace

import pytest
import torch
from small_generation import shrink_generation
from small_world import load_leaf

from usp_mm.engine.tf32_hook import TF32Hook
from usp_mm.registry import MODELS

SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'


def allowed():
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize('value', [True, False])
def test_the_training_has_the_models_setting(value, monkeypatch):
    before, hook, runner = allowed(), TF32Hook(), SimpleNamespace(model=SimpleNamespace(tf32=value))
    hook.before_train(runner)
    assert allowed() == before  # on a CPU
    hook.after_train(runner)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    hook.before_train(runner)
    assert allowed() == (value, value)
    hook.after_train(runner)
    assert allowed() == before


def test_the_generators_configs_have_the_hook_and_sampling_the_setting(small_world):
    cfg = shrink_generation(small_world, load_leaf(SIT))
    assert cfg.default_hooks.tf32.type == 'TF32Hook'
    model, plain = (MODELS.build(dict(cfg.model, **changes)) for changes in ({}, dict(tf32=False)))
    assert model.describe()['tf32'] is True and plain.describe()['tf32'] is False
    before = allowed()
    for one in (model, plain):
        with one.arithmetic(torch.device('cuda')):
            assert allowed() == (one.tf32, one.tf32)
        with one.arithmetic(torch.device('cpu')):
            assert allowed() == before
    assert allowed() == before
