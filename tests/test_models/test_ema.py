"""The average of a generator's weights: one call for all of them, and nothing that waits for the device."""

from unittest.mock import patch

import pytest
import torch
from mmengine.model import ExponentialMovingAverage

from usp_mm.models.ema import WeightAverage


def network(device='cpu'):
    return torch.nn.Sequential(*(torch.nn.Linear(2, 2, device=device) for _ in range(3)))


def test_an_update_is_one_call_for_all_parameters():
    model = network()
    average = WeightAverage(model, 0.25)
    with torch.no_grad():
        for param in model.parameters():
            param.add_(4.0)
    before = [param.clone() for param in average.module.parameters()]
    with patch('torch._foreach_lerp_', wraps=torch._foreach_lerp_) as lerp:
        average.update_parameters(model)
    assert [len(call.args[0]) for call in lerp.call_args_list] == [6]
    assert all(torch.allclose(now, old + 1) for now, old in zip(average.module.parameters(), before, strict=True))
    assert average.steps == 1


def test_an_update_reads_nothing_back():
    """Tensors on the meta device have no values, as those on another device have none yet."""
    model = network('meta')
    WeightAverage(model, 0.25).to('meta').update_parameters(model)
    with pytest.raises(RuntimeError, match='meta'):
        ExponentialMovingAverage(model, 0.25).to('meta').update_parameters(model)
