"""Which parameters LARS decays and rescales; test_golden_runner.py has the official steps."""

import torch
from mmpretrain.registry import OPTIMIZERS


def test_weight_decay_applies_to_matrices_only():
    matrix, vector = torch.nn.Parameter(torch.full((2, 2), 3.0)), torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = OPTIMIZERS.build(dict(type='MAELARS', params=[matrix, vector], lr=1.0, momentum=0.0, weight_decay=0.5))
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    # direction 1.5, rescaled by 0.001 * |3| / |1.5|
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 3.0 - 0.001 * 3.0))
    assert vector.tolist() == [3.0, 3.0]


def test_the_trust_coefficient_scales_the_step_of_matrices():
    matrix = torch.nn.Parameter(torch.full((2, 2), 3.0))
    optimizer = OPTIMIZERS.build(dict(type='MAELARS', params=[matrix], lr=1.0, weight_decay=0.5, trust_coefficient=0.02))
    matrix.grad = torch.zeros(2, 2)
    optimizer.step()
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 3.0 - 0.02 * 3.0))
