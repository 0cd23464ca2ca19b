"""Memory of a training, computed without weights or data."""

import re

import pytest
import torch
from helpers.small_world import ROOT, load_leaf

from usp_mm.analysis import memory
from usp_mm.analysis.complexity import build_meta
from usp_mm.analysis.memory import kept_for_backward, largest_share, training_memory

PRETRAINING = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
DIT = 'configs/dit/dit-base-p2_8xb32-400k_in1k-256px-latents.py'
SHARED = {'optim_wrapper.optimizer.type': 'ZeroRedundancyOptimizer', 'optim_wrapper.optimizer.optimizer_type': 'AdamW'}
BFLOAT16 = {'optim_wrapper.type': 'AutocastOptimWrapper'}


def config(path, **options):
    cfg = load_leaf(path)
    cfg.merge_from_dict(options)
    return cfg


def test_the_greedy_share():
    assert largest_share([2, 5, 3, 3], 1) == 13
    assert largest_share([2, 5, 3, 3], 2) == 7  # 5 + 2, 3 + 3
    assert largest_share([1], 3) == 1


def test_parts_of_a_small_dit():
    cfg = config(DIT, **{'model.denoiser.arch': 'tiny'})
    params = list(build_meta(cfg).denoiser.parameters())
    trained = sum(p.numel() for p in params if p.requires_grad)
    found = training_memory(cfg)
    assert found['weights'] == found['average'] == 4 * sum(p.numel() for p in params)
    assert found['gradients'] == 4 * trained and found['moments'] == 8 * trained and found['buckets'] == 0
    assert found['total'] == sum(value for key, value in found.items() if key != 'total')
    cfg.merge_from_dict({**SHARED, 'model_wrapper_cfg': dict(gradient_as_bucket_view=False)})
    two = training_memory(cfg, 2)
    assert 4 * trained <= two['moments'] <= 4.1 * trained and two['buckets'] == 4 * trained
    assert two['activations'] == found['activations']


@pytest.mark.parametrize('path', [PRETRAINING, DIT])
def test_activations_are_those_of_a_forward_pass_with_data(path, monkeypatch):
    part = 'model.denoiser.arch' if path == DIT else 'model.backbone.arch'
    model = build_meta(config(path, **{part: 'tiny'}))
    without = {dtype: kept_for_backward(model, 5, dtype) for dtype in (None, torch.bfloat16)}
    assert memory._kept(model, 5, None) == without[None]  # no extrapolation
    monkeypatch.setattr(memory, 'FakeTensorMode', lambda **_: torch.random.fork_rng(devices=[]))
    monkeypatch.setattr(memory, '_without_data', lambda x: torch.zeros(x.shape, dtype=x.dtype) if torch.is_tensor(x) else x)
    assert {dtype: kept_for_backward(model, 5, dtype) for dtype in without} == without
    assert without[torch.bfloat16] < without[None]


def test_checkpointing_keeps_less():
    plain, less = (
        build_meta(config(DIT, **{'model.denoiser.arch': 'tiny', 'model.denoiser.with_cp': x})) for x in (False, True)
    )
    assert kept_for_backward(less, 8) < kept_for_backward(plain, 8) / 3


def test_what_it_cannot_estimate():
    with pytest.raises(ValueError, match='cannot estimate the memory of OptimWrapper with SGD: expected OptimWrapper'):
        training_memory(config(DIT, **{'optim_wrapper.optimizer.type': 'SGD'}))
    with pytest.raises(ValueError, match='cannot estimate the memory of OptimWrapper with None'):
        training_memory(config(DIT, optim_wrapper=None))  # several optimizers have no single one either
    with pytest.raises(ValueError, match='cannot estimate the memory of a Linear'):
        kept_for_backward(torch.nn.Linear(1, 1), 2)


@pytest.mark.parametrize(('path', 'row'), [(PRETRAINING, 'B, pretraining, batch 64'), (DIT, 'B, DiT, batch 32')])
def test_the_table_of_the_docs(path, row):
    line = next(line for line in (ROOT / 'docs/processes.md').read_text().splitlines() if line.startswith(f'| {row}'))
    told = list(map(float, re.findall(r'\d+\.\d+', line)))
    whole = training_memory(config(path, **{'optim_wrapper.type': 'OptimWrapper'}))
    shares = [training_memory(config(path, **SHARED, **BFLOAT16), processes) for processes in (2, 4, 8)]
    keys = ('weights', 'gradients', 'moments')
    expected = [*(whole[key] for key in keys), *(share['moments'] for share in shares), whole['average']]
    expected += [whole['activations'], shares[0]['activations']]
    if path == DIT:
        expected.append(training_memory(config(path, **BFLOAT16, **{'model.denoiser.with_cp': True}))['activations'])
    assert told == [round(value / 2**30, 2) for value in expected]
