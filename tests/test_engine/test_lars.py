"""The official linear probe, three LARS steps: losses, weights, biases, BatchNorm statistics."""

import numpy as np
import torch
from golden import load
from mmpretrain.registry import MODELS, OPTIMIZERS


def test_three_official_steps():
    golden = load('linear_probe_lars')
    norm, linear = MODELS.build(dict(type='ClsBatchNormNeck', input_features=48)), torch.nn.Linear(48, 10)
    linear.load_state_dict({k: torch.from_numpy(golden[f'{k}0']) for k in ('weight', 'bias')})
    optimizer = OPTIMIZERS.build(dict(type='MAELARS', params=linear.parameters(), lr=3.2, momentum=0.9, weight_decay=0.0))
    for step in range(3):
        features, labels = torch.from_numpy(golden[f'features{step}']), torch.from_numpy(golden[f'labels{step}'])
        loss = torch.nn.functional.cross_entropy(linear(norm((features,))[0]), labels)
        np.testing.assert_allclose(loss.item(), golden[f'loss{step}'], rtol=0, atol=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        np.testing.assert_allclose(linear.weight.detach(), golden[f'weight{step + 1}'], rtol=0, atol=1e-5)
        np.testing.assert_allclose(linear.bias.detach(), golden[f'bias{step + 1}'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(norm.bn.running_mean, golden['running_mean'], rtol=0, atol=1e-5)
    np.testing.assert_allclose(norm.bn.running_var, golden['running_var'], rtol=0, atol=1e-5)


def test_weight_decay_applies_to_matrices_only():
    matrix, vector = torch.nn.Parameter(torch.full((2, 2), 3.0)), torch.nn.Parameter(torch.full((2,), 3.0))
    optimizer = OPTIMIZERS.build(dict(type='MAELARS', params=[matrix, vector], lr=1.0, momentum=0.0, weight_decay=0.5))
    matrix.grad, vector.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    # direction 1.5, rescaled by 0.001 * |3| / |1.5|
    torch.testing.assert_close(matrix.detach(), torch.full((2, 2), 3.0 - 0.001 * 3.0))
    assert vector.tolist() == [3.0, 3.0]
