"""Sampling without waiting for the device, with weights cast once and conditions embedded once."""

import pytest
import torch
from mmpretrain.registry import MODELS
from test_generator import PARTS, build  # noqa: F401  (a fixture)
from torch.profiler import ProfilerActivity, profile

from usp_mm.models import guidance
from usp_mm.models.guidance import Guidance
from usp_mm.models.sampling_weights import bfloat16_weights

SAMPLERS = {
    'ancestral': ('dit', dict(type='AncestralSampler', num_steps=6)),
    'ddim': ('dit', dict(type='DDIMSampler', num_steps=5)),
    'euler': ('sit', dict(type='ODESampler', method='euler', num_steps=6)),
    'heun2': ('sit', dict(type='ODESampler', method='heun2', num_steps=6)),
    'rk4': ('sit', dict(type='ODESampler', method='rk4', num_steps=4)),
    'sde': ('sit', dict(type='SDESampler', num_steps=6)),
    'sde heun': ('sit', dict(type='SDESampler', method='heun', num_steps=6)),
}
INDEX, LABEL = torch.arange(5), torch.tensor([0, 1, 2, 2, 9])


def generator(build, name, **changes):  # noqa: F811
    kind, sampler = SAMPLERS[name]
    model = build(kind, **changes).eval()
    model.sampler = MODELS.build(sampler)
    return model


def operations(function):
    with profile(activities=[ProfilerActivity.CPU]) as found:
        function()
    return {event.key: event.count for event in found.key_averages()}


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', SAMPLERS)
def test_no_number_is_fetched_from_the_device(build, name, dtype):  # noqa: F811
    interval = (300, 700) if SAMPLERS[name][0] == 'dit' else (0.3, 0.7)
    model = generator(build, name, guidance=dict(scale=2.0, interval=interval), sample_dtype=dtype)
    model.sample_latents(INDEX, LABEL)
    assert 'aten::_local_scalar_dense' not in operations(lambda: model.sample_latents(INDEX, LABEL))


@pytest.mark.parametrize('scale', [1.0, 2.0])
@pytest.mark.parametrize('name', SAMPLERS)
def test_samples_are_those_of_a_network_that_is_told_every_time_and_label(build, name, scale, monkeypatch):  # noqa: F811
    interval = (300, 700) if SAMPLERS[name][0] == 'dit' else (0.3, 0.7)
    model = generator(build, name, guidance=dict(scale=scale, interval=interval))
    found = model.sample_latents(INDEX, LABEL, seed=3)
    calls = []

    def each_its_own(self, x, time):
        t = torch.full((len(x),), time, dtype=torch.int64 if isinstance(time, int) else torch.float32)
        calls.append(float(t[0]))
        return self(x, t)

    monkeypatch.setattr(guidance.GuidedDenoiser, 'at', each_its_own)
    assert torch.equal(model.sample_latents(INDEX, LABEL, seed=3), found)
    inside = [interval[0] <= t <= interval[1] for t in calls]
    assert any(inside) and not all(inside)


def test_an_interval_ends_at_the_time_that_the_network_is_told():
    """0.9 as float32 is less than 0.9, the grid's float64 just above it."""
    above = 0.1 + 0.8 + 1e-9
    assert Guidance(2.0, interval=(0.1, 0.9)).applies(above) and not Guidance(2.0, interval=(0.1, 0.9)).applies(0.91)
    assert Guidance(2.0, interval=(0, 500)).applies(500) and not Guidance(2.0, interval=(0, 500)).applies(501)
    assert Guidance(2.0).applies(None) and not Guidance(1.0, interval=(0, 1)).applies(0.5)


def test_a_network_of_another_kind_gets_a_time_and_a_label_for_each_sample():
    seen = []

    class Network(torch.nn.Module):
        null_label = 7

        def forward(self, x, t, y):
            seen.append((t.tolist(), y.tolist()))
            return x

    denoise = Guidance(2.0).denoise(Network(), torch.tensor([1, 2]), MODELS.build(dict(type='FlowObjective')))
    assert torch.equal(denoise.at(x := torch.randn(2, 4, 2, 2), 0.5), x)
    assert seen == [([0.5] * 4, [1, 2, 7, 7])]


@pytest.mark.parametrize('arch', [PARTS['dit']['denoiser']['arch'], 'tiny', dict(embed_dims=384, depth=2, num_heads=6)])
@pytest.mark.parametrize('block', ['plain', 'lightning'])
def test_conditions_computed_once_are_those_of_each_row_to_the_bit(arch, block):
    torch.manual_seed(0)
    network = MODELS.build(dict(type='DiT', arch=arch, img_size=64, num_classes=10, block=block)).eval()
    x, t, y = torch.randn(40, 4, 8, 8), torch.tensor([0.3]), torch.arange(11)
    rows = torch.arange(40) % 11
    with torch.no_grad():
        expected, hidden = network(x, t.expand(40), y[rows], return_hidden=[2])
        found = network(x, t, y, rows=rows, return_hidden=[2])
        assert torch.equal(found[0], expected) and torch.equal(found[1][2], hidden[2])
        few = network(x[:3], t, y[:3], rows=rows[:3])
    assert torch.equal(few, expected[:3])


@pytest.mark.parametrize('scale', [1.0, 2.0])
@pytest.mark.parametrize('kind', ['dit', 'sit'])
def test_weights_cast_once_give_what_autocast_gives(build, kind, scale):  # noqa: F811
    """To the bit at this size; a product of the stacked modulation may round otherwise at larger ones."""
    fast, exact = build(kind, sample_dtype='bfloat16', guidance=dict(scale=scale)), build(kind, guidance=dict(scale=scale))
    found = fast.sample_latents(INDEX, LABEL)
    with torch.autocast('cpu', torch.bfloat16):
        autocast = exact.sample_latents(INDEX, LABEL)
    assert torch.equal(found, autocast) and not torch.equal(found, exact.sample_latents(INDEX, LABEL))


def test_at_the_width_of_base_cast_weights_stay_within_bfloat16s_rounding():
    torch.manual_seed(0)
    network = MODELS.build(dict(type='SiT', arch=dict(embed_dims=768, depth=2, num_heads=12), img_size=64, num_classes=10))
    network.eval().requires_grad_(False)
    x, t, y, rows = torch.randn(40, 4, 8, 8), torch.tensor([0.3]), torch.arange(10), torch.arange(40) % 10
    exact = network(x, t, y, rows=rows)
    with torch.autocast('cpu', torch.bfloat16):
        autocast = network(x, t, y, rows=rows)
        with bfloat16_weights(network):
            found = network(x, t, y, rows=rows)
    error = (autocast - exact).abs().max()
    assert (found - autocast).abs().max() <= 0.5 * error and (found - exact).abs().max() <= 1.5 * error


def test_casting_happens_once_and_is_undone(build):  # noqa: F811
    model = generator(build, 'euler', sample_dtype='bfloat16', guidance=dict(scale=2.0))
    network, inside = model.network(), []
    before = {name: (value, value.clone()) for name, value in network.named_parameters()}
    network.train()

    def look(step, state):
        inside.append({name: value.dtype for name, value in network.named_parameters()})
        assert network.stacked_modulation[0].data_ptr() == network.blocks[0].adaLN_modulation[1].weight.data_ptr()
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        model.sample_latents(INDEX, LABEL, on_step=look)
    kept = {name for name, dtype in inside[0].items() if dtype == torch.float32}
    assert kept == {'pos_embed', 'y_embedder.embedding_table.weight'} | {
        f'blocks.{k}.norm{n}.{what}' for k in (0, 1) for n in (1, 2) for what in ('weight', 'bias')
    }
    assert network.stacked_modulation is None and network.training
    for name, value in network.named_parameters():
        assert value is before[name][0] and torch.equal(value, before[name][1])
    assert list(network.state_dict()) == list(before)


def test_a_job_casts_once(build):  # noqa: F811
    model = generator(build, 'euler', sample_dtype='bfloat16')
    alone = model.sample_latents(INDEX, LABEL)
    network, pointers = model.network(), set()

    def look(step, state):
        pointers.add((network.stacked_modulation[0].data_ptr(), network.blocks[1].mlp.fc1.weight.data_ptr()))

    with model.sampling_weights():
        for _ in range(3):
            assert torch.equal(model.sample_latents(INDEX, LABEL, on_step=look), alone)
        look(0, None)
    assert len(pointers) == 1 and network.stacked_modulation is None
    assert network.blocks[1].mlp.fc1.weight.dtype == torch.float32


def test_a_step_in_bfloat16_casts_no_weight(build):  # noqa: F811
    fast, plain = generator(build, 'euler', sample_dtype='bfloat16'), generator(build, 'euler')

    def per_step(model):
        counts = []
        for num_steps in (3, 5):
            model.sampler.num_steps = num_steps
            counts.append(operations(lambda: model.sample_latents(INDEX, LABEL)))
        return {key: (counts[1].get(key, 0) - counts[0].get(key, 0)) / 2 for key in counts[1]}

    found = per_step(fast)
    with torch.autocast('cpu', torch.bfloat16):
        autocast = per_step(plain)
    linears = sum(isinstance(module, torch.nn.Linear | torch.nn.Conv2d) for module in fast.network().modules())
    assert autocast['aten::addmm'] == linears and found['aten::addmm'] == linears - 1  # the modulation of two blocks is one
    # a weight and a bias each, and the input of the product that is no more
    assert autocast['aten::_to_copy'] - found['aten::_to_copy'] == 2 * linears + 1


def test_only_a_cpu_pads_rows():
    from usp_mm.layers.modulation import CPU_ROW_TILE, conditioning

    seen = []
    with torch.no_grad():
        for device in ('cpu', 'meta'):
            conditioning(lambda c: seen.append(len(c)) or c, torch.empty(3, 4, device=device))
    conditioning(lambda c: seen.append(len(c)) or c, torch.empty(3, 4))  # in training
    assert seen == [CPU_ROW_TILE, 3, 3]
