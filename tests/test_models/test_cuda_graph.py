"""When a network's call is recorded, and in which order; the recording itself needs a GPU, for which a stand-in replays."""

from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch
from test_generator import build  # noqa: F401  (a fixture)

from usp_mm.models import guidance
from usp_mm.models.cuda_graph import GraphedCall, pays_off


@pytest.mark.parametrize(('device', 'num', 'expected'), [('cuda', 8, True), ('cuda', 9, False), ('cpu', 1, False)])
def test_small_batches_on_a_gpu(device, num, expected):
    assert pays_off(torch.device(device), num) == expected


@pytest.fixture
def recorder(monkeypatch):
    """In place of CUDA: notes what happens; a replay computes again, from the inputs that were held, into the same output."""
    events = []

    class Graph:
        def replay(self):
            events.append('replay')
            self.call.out.copy_(self.call.call(*self.call.inputs))

    @contextmanager
    def record(graph):
        events.append('record')
        yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in dict(
        CUDAGraph=Graph, graph=record, Stream=lambda: stream, current_stream=lambda: stream, stream=lambda stream: nullcontext()
    ).items():
        monkeypatch.setattr(torch.cuda, name, value)
    init = GraphedCall.__init__

    def link(self, call):
        init(self, call)
        Graph.call = self

    monkeypatch.setattr(GraphedCall, '__init__', link)
    return events


def test_the_second_call_is_recorded_and_later_ones_replay_it(recorder):
    call = GraphedCall(lambda x, t: x * t)
    inputs = [(torch.randn(3), torch.tensor([float(k)])) for k in range(4)]
    results = [call(*values) for values in inputs]
    assert recorder == ['record', 'replay', 'replay', 'replay']
    for found, (x, t) in zip(results, inputs, strict=True):
        assert torch.equal(found, x * t)


def test_a_generator_asks_for_graphs_and_samples_the_same(build, recorder, monkeypatch):  # noqa: F811
    plain, graphed = build(), build(cuda_graph=True)
    expected = plain.sample_latents([0, 1, 2], [3, 4, 5])
    assert torch.equal(graphed.sample_latents([0, 1, 2], [3, 4, 5]), expected) and recorder == []  # a CPU
    monkeypatch.setattr(guidance, 'pays_off', lambda device, num: num <= 2)
    assert torch.equal(graphed.sample_latents([0, 1, 2], [3, 4, 5]), expected) and recorder == []
    assert torch.equal(graphed.sample_latents([1, 2], [4, 5]), expected[1:]) and recorder == ['record', *['replay'] * 3]
