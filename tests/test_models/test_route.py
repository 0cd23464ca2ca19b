"""Routed tokens (TREAD) in the training of generators: a plain reference, independence of the batch, and what is refused."""

import copy
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.compiled_models import batch, gradients, step
from helpers.route_share import NUM, ROUTE, STD, generator
from helpers.small_world import ROOT
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from torch._dynamo import config as dynamo
from torch._dynamo.utils import counters

from usp_mm.analysis.complexity import _teacher, complexity
from usp_mm.analysis.memory import kept_for_backward
from usp_mm.apis.sources import _without_training
from usp_mm.engine.checks.config import check_config
from usp_mm.engine.checks.generator import _log_route
from usp_mm.engine.records.flops import count_flops
from usp_mm.functional import random
from usp_mm.functional.masking import gather_tokens, scatter_tokens
from usp_mm.functional.patchify import unpatchify
from usp_mm.models import compiling
from usp_mm.models.random_keys import sample_keys
from usp_mm.models.route import Route
from usp_mm.sampling.plan import _settings

kinds = pytest.mark.parametrize('kind', ['DiT', 'SiT'])
blocks = pytest.mark.parametrize('block', ['plain', 'lightning'])


def keys_of(num, epoch=2):
    return sample_keys(batch(num, epoch)['data_samples'], num, torch.device('cpu'), True)


def close(found, wanted, share=1e-10):
    torch.testing.assert_close(found, wanted, rtol=0, atol=share * float(wanted.abs().max()))


def reference(network, x, t, y, keep):
    """The routed network, one sample after the other."""
    rows, cs = [], network.t_embedder(t) + network.y_embedder(y)
    for i, c in enumerate(cs.split(1)):
        tokens, rope = network.x_embedder(x[i : i + 1]) + network.pos_embed, network.rope() if network.rope else None
        kept = tokens[:, keep[i]]
        for k, block in enumerate(network.blocks):
            if network.route.start <= k < network.route.end:
                kept = block(kept, c, None if rope is None else rope[keep[i]])
                tokens = torch.stack([kept[0, keep[i].tolist().index(j)] if j in keep[i] else tokens[0, j] for j in range(16)])[
                    None
                ]
            else:
                tokens = block(tokens, c, rope)
                kept = tokens[:, keep[i]]
        rows.append(unpatchify(network.final_layer(tokens, c), network.geometry.patch_size, network.geometry.grid))
    return network._output(torch.cat(rows))


# ------------------------------------------------------------------ the numbers


@kinds
@blocks
@pytest.mark.parametrize('span', [(1, -1), (0, 4), (2, 3), (0, -3)])
def test_outputs_and_gradients_are_those_of_a_loop_over_samples(kind, block, span):
    model = generator(kind, dict(keep=0.4, start=span[0], end=span[1]), block=block)
    network, keep = model.denoiser.double(), model.denoiser.route.draw(keys_of(3))
    network.t_embedder.float()  # which embeds times in float32
    assert keep.shape == (3, 6)  # 0.4 of 16
    x, t, y = batch(3)['inputs'].double(), torch.tensor([0.1, 0.5, 0.9]), torch.arange(3)
    grads = []
    for out in (network(x, t, y, keep=keep), reference(network, x, t, y, keep)):
        network.zero_grad()
        out.square().sum().backward()
        grads.append((out.detach(), gradients(network)))
    (found, ours), (wanted, plain) = grads
    close(found, wanted)
    assert ours.keys() == plain.keys()
    for name, value in ours.items():
        close(value, plain[name])
    assert (found - network(x, t, y)).abs().max() > 0.1 * wanted.abs().max()  # the route does change something


@kinds
def test_all_tokens_kept_is_no_route_to_the_bit(kind):
    plain, kept = generator(kind, None), generator(kind, dict(ROUTE, keep=1.0))
    assert torch.equal(step(plain), step(kept))
    ours, theirs = gradients(kept), gradients(plain)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items()) and ours.keys() == theirs.keys()
    assert list(kept.state_dict()) == list(generator(kind).state_dict()) == list(plain.state_dict())
    assert abs(step(generator(kind)) - step(plain)) > 1e-4


def test_tokens_that_are_not_kept_rejoin_unchanged_and_pass_gradients_on():
    network = generator().denoiser
    keep, seen = network.route.draw(keys_of(2)), {}
    for k in (0, 3):  # before and after the span
        network.blocks[k].register_forward_hook(lambda m, args, out, k=k: seen.update({k: (args[0], out)}))
    network(batch(2)['inputs'], torch.rand(2), torch.arange(2), keep=keep)
    before, after = seen[0][1], seen[3][0]
    others = torch.stack([torch.tensor([j for j in range(16) if j not in row]) for row in keep])
    assert torch.equal(gather_tokens(before, others), gather_tokens(after, others))
    assert not torch.isclose(gather_tokens(before, keep), gather_tokens(after, keep)).all(-1).any()
    (gradient,) = torch.autograd.grad(gather_tokens(after, others).sum(), before)
    assert torch.equal(gradient, scatter_tokens(torch.zeros_like(before), others, torch.ones(2, 8, 32)))


# ------------------------------------------------------------------ which tokens are kept


def test_kept_tokens_are_a_function_of_seed_epoch_and_sample():
    route = Route(4, 16, **ROUTE)
    keep = route.draw(keys_of(6))
    noise = random.uniform(torch.arange(6), torch.full((6,), 2), 16, seed=5, stream='route')
    assert all(set(row.tolist()) == set(one.sort().indices[:8].tolist()) for row, one in zip(keep, noise, strict=True))
    assert all(len(set(row.tolist())) == 8 for row in keep)
    assert torch.equal(route.draw(keys_of(3)), keep[:3]) and not torch.equal(route.draw(keys_of(6, epoch=3)), keep)
    mask = random.uniform(torch.arange(6), torch.full((6,), 2), 16, seed=5, stream='mask')
    assert not torch.equal(mask, noise)


def test_every_token_is_kept_as_often():
    route, num = Route(4, 16, keep=0.25, start=1, end=3), 4000
    keys = SimpleNamespace(uniform=lambda count, stream: random.uniform(torch.arange(num), torch.zeros(num).long(), count,
                                                                        seed=1, stream=stream))  # fmt: skip
    share = route.draw(keys).flatten().bincount(minlength=16) / num
    assert share.sum() == 4 and (share - 0.25).abs().max() < 0.03  # more than four standard deviations


@kinds
def test_a_loss_is_the_mean_of_those_of_its_samples(kind):
    model, whole = generator(kind), batch(4)
    losses = [model.loss(whole['inputs'][[i]], [whole['data_samples'][i]])['loss'] for i in range(4)]
    torch.testing.assert_close(model.loss(**whole)['loss'], torch.stack(losses).mean(), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path):
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), str(ROOT / 'tests')]), 'OMP_NUM_THREADS': '1'}
    script = ROOT / 'tests' / 'helpers' / 'route_share.py'
    done = subprocess.run([*launcher, script, tmp_path], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found, model, plain = torch.load(tmp_path / 'found.pth'), generator(std=STD), generator(route=None, std=STD)
    torch.testing.assert_close(found['loss'], step(model, NUM), rtol=1e-5, atol=0)
    step(plain, NUM)
    for name, value in gradients(model).items():
        close(found['gradients'][name], value, 1e-5)
    qkv = 'denoiser.blocks.1.attn.qkv.weight'  # of a block on the route
    with pytest.raises(AssertionError):
        close(found['gradients'][qkv], gradients(plain)[qkv], 0.1)


# ------------------------------------------------------------------ where it does not apply


@kinds
def test_sampling_evaluation_and_the_average_run_all_tokens(kind):
    plain, routed = generator(kind, None), generator(kind)
    for name in ('ema', 'model'):
        samples = [model.sample_latents([0, 1], [1, 2], sample_model=name) for model in (plain, routed)]
        assert torch.equal(*samples)
    assert routed.denoiser.training  # sampling leaves it so
    losses = [model.eval().loss(**batch())['loss'] for model in (plain, routed)]
    assert torch.equal(*losses)
    before = copy.deepcopy(routed.denoiser_ema.state_dict())
    optim_wrapper = OptimWrapper(torch.optim.SGD(routed.denoiser.parameters(), lr=0.1))
    routed.train().train_step(batch(), optim_wrapper)
    assert all(torch.equal(before[name], value) for name, value in routed.denoiser_ema.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in routed.denoiser_ema.parameters())


def test_what_samples_know_of_their_denoiser_is_without_the_route():
    denoiser = dict(type='SiT', arch='tiny', route=dict(ROUTE))
    loaded = Config(dict(model=dict(denoiser=denoiser)))
    assert _settings(loaded) == dict(type='SiT', arch='tiny')
    assert _without_training(dict(denoiser=denoiser)) == dict(denoiser=dict(type='SiT', arch='tiny'))


@kinds
@blocks
def test_checkpointed_gradients_are_the_same(kind, block):
    models = [generator(kind, with_cp=with_cp, block=block) for with_cp in (False, True)]
    assert torch.equal(*(step(model) for model in models))
    ours, theirs = (gradients(model) for model in models)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@blocks
def test_under_autocast_the_loss_is_close(block):
    model = generator(block=block)
    exact, low = step(model), step(model, amp=True)
    assert low.dtype == torch.float32 and 0 < abs(low - exact) < 0.02 * exact


# ------------------------------------------------------------------ compiled


@pytest.fixture
def dynamo_as_it_was():
    limit = dynamo.recompile_limit
    torch.compiler.reset()
    counters.clear()
    compiling._COMPILED.clear()
    yield
    dynamo.recompile_limit = limit
    torch.compiler.reset()


@blocks
@pytest.mark.parametrize(('region', 'graphs'), [('blocks', 4), ('loss', 2)])
def test_compiled_without_breaks_with_constant_numbers_of_tokens(block, region, graphs, dynamo_as_it_was):
    sizes = set()

    def backend(graph, inputs):
        sizes.update((x.ndim, type(x.shape[-2])) for x in inputs if isinstance(x, torch.Tensor) and x.ndim > 2)
        return graph

    eager, compiled = generator(block=block), generator(block=block, changes=dict(compile=dict(region=region, backend=backend)))
    for num in (4, 3, 4):
        torch.testing.assert_close(step(compiled, num), step(eager, num), rtol=1e-5, atol=0)
    assert not counters['graph_break'] and counters['frames']['total'] == counters['frames']['ok']
    assert (
        counters['stats']['unique_graphs'] == graphs
    )  # the first batch and any other; of blocks, with all tokens and with some
    if region == 'blocks':
        assert {kind for _, kind in sizes} == {int}
        with torch.no_grad():
            compiled.eval().loss(**batch(4))
            assert {kind for _, kind in sizes} == {int}


# ------------------------------------------------------------------ REPA


def aligned(route, depth, **repa):
    teacher = dict(name='resnet', backbone=dict(type='mmpretrain.ResNet', depth=18), checkpoint='unused.pth', dim=24)
    return generator(route=route, changes=dict(repa=dict(teacher=teacher, depth=depth, hidden_dims=40, **repa)))


@pytest.mark.parametrize(('depth', 'inside'), [(1, False), (2, True), (3, False), (4, False)])
def test_repa_aligns_the_tokens_that_are_there_with_those_of_their_places(depth, inside):
    model, keys, x, t = aligned(ROUTE, depth), keys_of(3), batch(3)['inputs'], torch.tensor([0.2, 0.5, 0.8])
    label, targets = torch.arange(3), torch.randn(3, 16, 24, generator=torch.Generator().manual_seed(1))
    keep = model.denoiser.route.draw(keys)
    assert model.denoiser.route.inside(depth) == inside
    noise = torch.zeros_like(x)
    parts = model._aligned_losses(model.repa, x, t, label, noise, targets, keep)
    x_t = t.view(-1, 1, 1, 1) * x
    _, hidden = model.denoiser(x_t, t, label, return_hidden=[depth], keep=keep)
    tokens = hidden[depth]
    assert tokens.shape == (3, 8 if inside else 16, 32)
    wanted = []
    for i in range(3):
        places = keep[i].tolist() if inside else range(16)
        projected = model.repa.projector(tokens[i])
        cosines = [torch.cosine_similarity(one, targets[i, place], dim=0) for one, place in zip(projected, places, strict=True)]
        wanted.append(-torch.stack(cosines).mean())
    torch.testing.assert_close(parts['repa'], torch.stack(wanted), rtol=1e-5, atol=1e-6)


def test_a_loss_with_repa_uses_the_route():
    model, plain = aligned(ROUTE, 2), aligned(None, 2)
    targets = torch.randn(4, 16, 24, generator=torch.Generator().manual_seed(1))
    found = [one.loss(**batch(), teacher_tokens=targets) for one in (model, plain)]
    assert not torch.isclose(found[0]['repa'], found[1]['repa'], rtol=1e-4)
    found = [one.eval().loss(**batch(), teacher_tokens=targets) for one in (model, plain)]
    assert torch.equal(found[0]['repa'], found[1]['repa'])


def test_a_projector_of_neighbours_needs_all_tokens():
    with pytest.raises(ValueError, match=r'repa\.depth=2 lies inside denoiser\.route, from 1 to 3.*to at most 1 or at least 3'):
        generator(changes=dict(repa=conv(2)))
    for depth in (1, 3):
        assert generator(changes=dict(repa=conv(depth))).repa.depth == depth
    assert generator(route=dict(ROUTE, keep=1.0), changes=dict(repa=conv(2))).repa.depth == 2


def conv(depth):
    teacher = dict(name='resnet', backbone=dict(type='mmpretrain.ResNet', depth=18), checkpoint='unused.pth', dim=24)
    return dict(teacher=teacher, depth=depth, projector='conv')


def test_the_log_names_blocks_and_tokens():
    lines = []
    runner = SimpleNamespace(logger=SimpleNamespace(info=lines.append))
    _log_route(aligned(None, 2), runner)
    assert lines == []
    _log_route(aligned(ROUTE, 1), runner)
    assert lines == ['denoiser.route: in training, blocks 2 to 3 see 8 of 16 tokens; sampling and validation use all']
    _log_route(aligned(ROUTE, 2), runner)
    assert lines[2].startswith('repa.depth=2 lies inside denoiser.route, from 1 to 3: only the tokens that are kept there are ')


# ------------------------------------------------------------------ operations and memory


def test_operations_are_those_of_the_tokens_on_the_route():
    plain, routed = count_flops(generator(route=None)), count_flops(generator())
    assert routed['forward'] == plain['forward']

    def block(tokens, width=32):  # products of each token; tokens with tokens
        return 2 * 12 * width * width * tokens + 2 * 2 * tokens * tokens * width

    assert plain['train'] - routed['train'] == 3 * 2 * (block(16) - block(8))
    assert count_flops(generator(with_cp=True)) == routed
    assert count_flops(generator(route=dict(ROUTE, keep=1.0))) == plain


@pytest.mark.parametrize(('kind', 'arch', 'low', 'high'), [('dit', 'base', 0.74, 0.75), ('sit', 'xl', 0.59, 0.61)])
def test_operations_of_the_configs(kind, arch, low, high):
    name = f'configs/{kind}/{kind}-{arch}-p2_usp-pre_tread_8xb32-400k_in1k-256px-latents.py'
    routed, plain = (complexity(Config.fromfile(ROOT / path)) for path in (name, name.replace('_tread', '')))
    assert low < routed['network']['train'] / plain['network']['train'] < high
    assert routed['network']['forward'] == plain['network']['forward'] and routed['sample'] == plain['sample']
    assert routed['step'] == 256 * routed['network']['train']


def test_the_projector_is_counted_for_the_tokens_that_it_sees():
    cfg = Config.fromfile(ROOT / 'configs/sit/sit-xl-p2_usp-pre_repa_8xb32-400k_in1k-256px-latents.py')
    plain = _teacher(cfg)['projector']['train']
    cfg.model.denoiser.route = dict(keep=0.5, start=2, end=-4)
    assert _teacher(cfg)['projector']['train'] == plain / 2
    cfg.model.denoiser.route.start = 8
    assert _teacher(cfg)['projector']['train'] == plain


def test_memory_for_the_backward_pass_is_less():
    plain, routed = (generator(route=route).to('meta') for route in (None, ROUTE))
    assert 0.5 < kept_for_backward(routed, 4) / kept_for_backward(plain, 4) < 0.85


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(('change', 'message'), [
    (dict(keep=0.0), 'denoiser.route.keep=0.0 must be more than 0 and at most 1'),
    (dict(keep=1.5), 'denoiser.route.keep=1.5 must be more than 0 and at most 1'),
    (dict(keep=0.01), 'denoiser.route.keep=0.01 keeps none of 16 tokens: set it to 0.062 or more'),
    (dict(start=3), 'denoiser.route from start=3 to end=-1 is no span of the 4 blocks: expected integers with 0 <= start '),
    (dict(start=-1), 'denoiser.route from start=-1 to end=-1 is no span'),
    (dict(end=5), 'denoiser.route from start=1 to end=5 is no span'),
    (dict(end=-4), 'denoiser.route from start=1 to end=-4 is no span'),
    (dict(start=1.5), 'denoiser.route from start=1.5 to end=-1 is no span'),
])  # fmt: skip
def test_what_is_no_route(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        generator(route=dict(ROUTE, **change))


def test_the_defaults_are_a_span_of_every_published_depth_only():
    spans = {}
    for arch in ('base', 'large', 'xl'):
        with torch.device('meta'):
            route = MODELS.build(dict(type='SiT', arch=arch, route={})).route
        spans[arch] = (route.start, route.end, route.num_keep)
    assert spans == dict(base=(2, 8, 128), large=(2, 20, 128), xl=(2, 24, 128))
    with pytest.raises(ValueError, match='from start=2 to end=-4 is no span of the 4 blocks'):
        MODELS.build(dict(type='SiT', arch='tiny', route={}))


def test_kept_tokens_need_a_route():
    network = generator(route=None).denoiser
    with pytest.raises(ValueError, match='the denoiser has none: set denoiser'):
        network(batch(2)['inputs'], torch.rand(2), torch.arange(2), keep=torch.arange(8).expand(2, 8))


@pytest.mark.parametrize(('route', 'message'), [
    (dict(keep=0.5, begin=2), "unknown key 'begin' in model.denoiser.route"),
    (dict(keep='half'), "model.denoiser.route.keep='half'"),
])  # fmt: skip
def test_wrong_keys_and_kinds_end_before_the_run(route, message):
    cfg = Config.fromfile(ROOT / 'configs/sit/sit-tiny-p2_tread_1xb64-2k_digits.py')
    check_config(cfg)
    cfg.model.denoiser.route = route
    with pytest.raises(ValueError, match=re.escape(message)):
        check_config(cfg)


def test_scattered_tokens_are_those_gathered():
    x, y = torch.arange(12.0).reshape(2, 3, 2), -torch.ones(2, 2, 2)
    ids = torch.tensor([[2, 0], [1, 2]])
    out = scatter_tokens(x, ids, y)
    assert torch.equal(gather_tokens(out, ids), y)
    assert torch.equal(out[0, 1], x[0, 1]) and torch.equal(out[1, 0], x[1, 0]) and x.sum() == 66
