"""model.tf32: the process's setting while a model trains, is tested and samples on a GPU, and what it was after."""

from types import SimpleNamespace

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_world import load_leaf

import usp_mm.segmentation  # noqa: F401  (registers the segmentor)
from usp_mm.engine.checks.config.accepted_keys import arguments
from usp_mm.engine.hooks.tf32_hook import TF32Hook
from usp_mm.registry import MODELS

SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'

USP = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


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


def test_a_validation_within_a_training_a_test_and_models_of_others(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    before, hook, runner = allowed(), TF32Hook(), SimpleNamespace(model=SimpleNamespace(tf32=False))
    hook.before_train(runner)
    hook.before_val(runner)
    hook.after_val(runner)
    assert allowed() == (False, False)
    hook.after_train(runner)
    assert allowed() == before
    hook.before_test(runner)
    assert allowed() == (False, False)
    hook.after_test(runner)
    hook.before_train(SimpleNamespace(model=SimpleNamespace()))
    assert allowed() == before
    hook.after_train(runner)


@pytest.mark.parametrize('path', [USP, LINEAR, UPERNET])
def test_every_stage_has_the_hook_and_the_key(path, small_world):
    cfg = load_leaf(path)
    assert cfg.default_hooks.tf32.type == 'TF32Hook'
    assert 'tf32' in arguments(MODELS.get(cfg.model.type)).kinds


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
