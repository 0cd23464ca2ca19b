"""`compile=`: the graphs of each model, what makes new ones, and that numbers and names stay what they are."""

import copy
import logging

import pytest
import torch
from helpers.compiled_models import GENERATORS, batch, build, gradients, step
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters

from usp_mm.engine.records.flops import count_flops
from usp_mm.layers import ModulatedBlock, TransformerBlock, block_options
from usp_mm.layers.drop_path import DropPath
from usp_mm.models import compiling
from usp_mm.models.generator import LatentDiffusionGenerator
from usp_mm.models.random_keys import sample_keys
from usp_mm.models.usp import USP
from usp_mm.models.usp_decoder import DecoderBlock

EAGER = dict(region='blocks', backend='eager')
models = pytest.mark.parametrize('kind', ['USP', 'DiT', 'SiT'])
generators = pytest.mark.parametrize('kind', sorted(GENERATORS))


@pytest.fixture(autouse=True)
def dynamo_as_it_was():
    """Without graphs of other tests, and with PyTorch's own limit afterwards."""
    limit = dynamo.recompile_limit
    torch.compiler.reset()
    counters.clear()
    compiling._COMPILED.clear()
    compiling._log_once.cache_clear()
    yield
    dynamo.recompile_limit = limit
    torch.compiler.reset()


@pytest.fixture
def told(monkeypatch):
    lines = []
    monkeypatch.setattr(compiling, 'print_log', lambda line, logger, level: lines.append((line, level)))
    return lines


def graphs():
    """Graphs so far; every frame that was met has one."""
    frames = counters['frames']
    assert frames['total'] == frames['ok'] and not counters['graph_break']
    return counters['stats']['unique_graphs']


def no_break(function, *args):
    found = torch._dynamo.explain(function)(*args)
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


@pytest.mark.parametrize(('region', 'what'), [('blocks', 'blocks are'), ('loss', 'loss is')])
def test_a_first_step_that_compiles_is_announced_once(region, what, told):
    for _ in range(2):
        compiling.Compiling(region)
    line = f'compile: the {what} compiled when first used: that step takes seconds to minutes longer, without a line here'
    assert told == [(line, logging.INFO)]
    compiling.Compiling(False)
    assert len(told) == 1


@pytest.mark.parametrize('block', ['plain', 'lightning'])
def test_blocks_are_one_graph(block):
    x, c, options = torch.randn(2, 5, 32), torch.randn(2, 32), block_options(block)
    rope = torch.randn(4, 32) if options.rope else None
    no_break(TransformerBlock(32, 2, drop_path=0.1, options=options), x, rope)
    no_break(DecoderBlock(32, 2), x)
    no_break(ModulatedBlock(32, 2, options=options), x, c, torch.randn(5, 32) if options.rope else None)


@models
@pytest.mark.parametrize('noised', [False, True])
def test_a_loss_is_one_graph_with_its_noise(kind, noised):
    x, samples = batch().values()
    if kind == 'USP':
        model = build(kind, alpha_bar_range=(0.5, 1.0) if noised else None)
        no_break(USP._loss, model, x, sample_keys(samples, 4, x.device, True))
    else:
        model = build(kind, denoiser=dict(with_cp=noised))
        keys = sample_keys(samples, 4, x.device, True)
        no_break(LatentDiffusionGenerator._losses, model, x, keys, torch.arange(4), None)


def everything(model, amps):
    """Training, a ragged batch, the loss of a validation, and sampling with both weights in three batch sizes."""
    for amp in amps:
        for num in (4, 4, 3, 1, 4):
            step(model, num, amp)
    model.eval()
    for amp in amps:
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=amp):
            for num in (4, 3, 1):
                model.loss(**batch(num))
        model.sample_dtype = 'bfloat16' if amp else 'float32'
        for name in ('ema', 'model'):
            for model.guidance.scale in (1.0, 2.0):
                for num in (2, 5, 1):
                    model.sample_latents(list(range(num)), [1] * num, sample_model=name)
    for num in (4, 3, 1):
        step(model, num, amps[0])


@generators
def test_graphs_of_a_run_of_one_arithmetic(kind):
    """First batch, many and one with gradients; the same without; many and one of bfloat16 weights, whichever set samples."""
    everything(build(kind, compile=EAGER), [True])
    assert graphs() == 3 + 3 + 2


def test_all_that_there_is_stays_within_the_limit():
    everything(build('SiT', compile=EAGER), [False, True])
    assert graphs() == 14 < dynamo.recompile_limit == compiling.MAX_GRAPHS


@pytest.mark.slow
def test_the_loss_region_has_graphs_of_its_own():
    everything(build('DiT', compile=dict(EAGER, region='loss')), [True])
    assert graphs() == 8  # the loss: 5, the blocks while sampling: 3


def test_encoder_and_decoder_keep_their_shapes_apart():
    sizes = []

    def backend(graph, inputs):
        sizes.extend(size for x in inputs if isinstance(x, torch.Tensor) for size in x.shape)
        return graph

    model = build('USP', compile=dict(backend=backend))
    for _ in range(2):
        step(model)
    assert graphs() == 2 and {type(size) for size in sizes} == {int}


def test_drop_paths_of_all_rates_share_a_graph():
    """4 graphs of training and evaluation, whatever the depth; timm's have one a rate."""
    model = build('USPClassifier', compile=EAGER)
    for num in (4, 3, 1):
        step(model, num)
    training = graphs()
    model.eval()
    with torch.no_grad():
        for num in (8, 3, 1):
            model.loss(**batch(num))
    assert (training, graphs()) == (3, 5)


def test_drop_path_compiled_and_eager():
    x = torch.ones(2000, 2, 3)
    layer = DropPath(0.25)
    compiled = torch.compile(layer, backend='eager')
    for found in (layer(x), compiled(x)):
        assert found.unique().tolist() == pytest.approx([0, 1 / 0.75])
        assert torch.equal(found, found[:, :1, :1].expand_as(found))
        assert 0.2 < (found == 0).float().mean() < 0.3
    assert torch.equal(compiled.eval()(x), x) and torch.equal(layer.eval()(x), x)
    assert not layer.state_dict()


@models
@pytest.mark.parametrize('region', ['blocks', 'loss'])
def test_numbers_names_and_copies(kind, region):
    plain, compiled = build(kind), build(kind, compile=dict(region=region, backend='aot_eager'))
    copied = copy.deepcopy(compiled)
    for model in (compiled, copied):
        torch.testing.assert_close(step(model), step(plain), rtol=0, atol=1e-5)
        for name, found in gradients(model).items():
            torch.testing.assert_close(found, gradients(plain)[name], rtol=0, atol=1e-5)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.5)
    assert abs(step(copied) - step(compiled)) > 1e-3  # the copy's own weights
    assert graphs() <= 6


@generators
def test_with_activation_checkpointing_and_two_backward_passes_a_step(kind):
    plain, compiled = (
        build(kind, denoiser=dict(with_cp=True), compile=compile)
        for compile in (False, dict(region='blocks', backend='aot_eager'))
    )
    for model in (plain, compiled):
        step(model)
        model.loss(**batch(4, epoch=3))['loss'].backward()
    for name, found in gradients(compiled).items():
        torch.testing.assert_close(found, gradients(plain)[name], rtol=0, atol=1e-5)
    assert graphs() == 1


@pytest.mark.parametrize('kind', ['USP', 'USPClassifier', 'SiT'])
def test_operations_are_counted_and_programs_exported_without_compiling(kind):
    backend = dict(region='blocks', backend=lambda *args: pytest.fail('compiled'))
    plain, compiled = build(kind), build(kind, compile=backend)
    assert count_flops(compiled) == count_flops(plain)
    network = compiled.denoiser if kind == 'SiT' else compiled.backbone
    args = (torch.randn(2, 4, 8, 8), *((torch.rand(2), torch.arange(2)) if kind == 'SiT' else ()))
    program = torch.export.export(network.eval(), args)
    with torch.compiler.set_stance('force_eager'), torch.no_grad():
        wanted, found = network(*args), program.module()(*args)
    torch.testing.assert_close(*((x[0] if isinstance(x, tuple) else x) for x in (found, wanted)), rtol=0, atol=1e-6)


def test_what_runs_eager_is_told_once(told):
    model = build('SiT', compile=EAGER)
    dynamo.recompile_limit = 1
    for num in (4, 3, 2, 1):
        step(model, num)
    announced, (line, level) = told
    assert announced[1] == logging.INFO and level == logging.WARNING
    assert "'forward'" in line and 'has its 1 graphs (torch._dynamo.config.recompile_limit)' in line and 'runs eager' in line


def test_a_graph_break_is_told_once(told, monkeypatch):
    forward = ModulatedBlock.forward

    def broken(self, x, c, rope=None, vectors=None):
        torch._dynamo.graph_break()
        return forward(self, x, c, rope, vectors)

    monkeypatch.setattr(ModulatedBlock, 'forward', broken)
    step(build('SiT', compile=EAGER))
    announced, (line, level) = told
    assert announced[1] == logging.INFO and level == logging.WARNING and 'part of the model runs eager' in line
    monkeypatch.setattr(ModulatedBlock, 'forward', forward)


def test_the_older_name(told):
    model = build('SiT', compile_denoiser=dict(backend='eager'))
    assert (model.compiling.region, model.compiling.options) == ('blocks', dict(backend='eager'))
    assert "compile_denoiser is now model.compile={'backend': 'eager'}" in told[0][0]
    assert build('SiT', compile_denoiser=True).compiling.region == 'blocks'
    with pytest.raises(ValueError, match=r"compile_denoiser=True is the older name of compile='blocks'"):
        build('SiT', compile_denoiser=True, compile='blocks')


@pytest.mark.parametrize(('kind', 'value', 'message'), [
    ('USP', True, r"compile=True must be False, one of \('blocks', 'loss'\), or a dict"),
    ('SiT', 'block', r"compile='block' must be False"),
    ('USPClassifier', 'loss', r"compile='loss' must be False, one of \('blocks',\).*a loss of this package's own"),
])  # fmt: skip
def test_what_it_is_not(kind, value, message):
    with pytest.raises(ValueError, match=message):
        build(kind, compile=value)


def test_nothing_is_compiled_unless_asked():
    step(build('USP'))
    assert not counters['frames'] and dynamo.recompile_limit == 8
