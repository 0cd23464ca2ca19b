"""Attention's kernels: which are preferred where."""

import pytest
import torch
from torch.nn.attention import SDPBackend

from usp_mm.functional.attention import PREFERRED, fast_attention


def order():
    return [SDPBackend(number) for number in torch._C._get_sdp_priority_order()]


@pytest.mark.parametrize(('capability', 'preferred'), [((9, 0), True), ((10, 0), True), ((8, 0), False)])
def test_hopper_prefers_cudnn_and_other_cards_keep_torchs_order(monkeypatch, capability, preferred):
    monkeypatch.setattr('torch.cuda.get_device_capability', lambda device: capability)
    before = order()
    assert before[0] != SDPBackend.CUDNN_ATTENTION
    with fast_attention(torch.device('cuda')):
        inside = order()
    assert (inside[: len(PREFERRED)] == PREFERRED) == preferred and (inside == before) != preferred
    assert order() == before


@pytest.mark.parametrize('head_dim', [64, 72])
def test_on_a_cpu_nothing_changes(head_dim):
    q = torch.randn(2, 3, 5, head_dim)
    expected, before = torch.nn.functional.scaled_dot_product_attention(q, q, q), order()
    with fast_attention(torch.device('cpu')):
        assert order() == before
        assert torch.equal(torch.nn.functional.scaled_dot_product_attention(q, q, q), expected)
