"""The facts of a run, and the operations of a training sample against counts by hand."""

import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_segmentation import shrink_segmentation
from mmengine.config import Config
from mmengine.dataset import BaseDataset, ConcatDataset
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler

from usp_mm.analysis.run_log import read_run
from usp_mm.datasets import LatentCacheDataset
from usp_mm.engine.records.flops import count_flops
from usp_mm.engine.records.run_info import _encodes, run_info

LATENTS = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
ONLINE = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'
SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'
KEYS = [
    'config', 'stage', 'model', 'network', 'world_size', 'device', 'device_name', 'batch_size', 'accumulative_counts',
    'parameters', 'flops_per_sample', 'train_flops_per_sample', 'online_encoding', 'torch', 'seed', 'start_iter', 'max_iters',
    'iters_per_epoch', 'log_window', 'labels_per_class', 'labels_seed',
]  # fmt: skip


def generator(**denoiser):
    arch = dict(depth=2, num_heads=2, embed_dims=32)
    return MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            denoiser=dict(type='DiT', arch=arch, img_size=64, **denoiser),
            objective=dict(type='DDPMObjective'),
            sampler=dict(type='DDIMSampler'),
            data_preprocessor=dict(load_vae=False),
        )
    )


def block_flops(tokens, width):
    return 2 * tokens * width * width * (3 + 1 + 8) + 4 * tokens * tokens * width


def dit_flops(tokens=16, width=32, depth=2, patch=16, out=32, frequencies=256):
    modulation = 2 * width * width * (6 * depth + 2)
    embedders = 2 * tokens * patch * width + 2 * frequencies * width + 2 * width * width
    return depth * block_flops(tokens, width) + modulation + embedders + 2 * tokens * width * out


def test_a_cache_in_a_concatenation_is_no_online_encoding(small_world):
    cache = LatentCacheDataset(small_world.cache('tiny', 64))
    model = SimpleNamespace(data_preprocessor=SimpleNamespace(codec=SimpleNamespace(network=1)))
    assert not _encodes(model, ConcatDataset([cache, cache])) and _encodes(model, ConcatDataset([Numbers(), Numbers()]))


class Numbers(BaseDataset):
    def load_data_list(self):
        return [{}]


def test_a_denoiser_is_counted_exactly():
    counted = count_flops(generator())
    assert counted['forward'] == dit_flops()
    # the gradient of the latents and of the time's frequencies is not needed: one product instead of two
    first = 2 * 16 * 16 * 32 + 2 * 256 * 32
    assert counted['train'] == 3 * dit_flops() - first
    assert count_flops(generator(with_cp=True)) == counted


def test_pretraining_counts_visible_tokens_and_decoder():
    backbone = dict(type='USPViT', img_size=64, arch=dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16,
                    decoder_depth=1, decoder_heads=2))  # fmt: skip
    model = MODELS.build(dict(type='USP', backbone=backbone, data_preprocessor=dict(load_vae=False)))
    encoder = 2 * 16 * 16 * 32 + 2 * block_flops(1 + 4, 32)
    decoder = 2 * 5 * 32 * 16 + block_flops(17, 16) + 2 * 17 * 16 * 16
    counted = count_flops(model)
    assert counted['forward'] == encoder + decoder
    assert 2.9 < counted['train'] / counted['forward'] <= 3


def test_counting_leaves_no_trace(small_world):
    cfg = small_world.shrink(Config.fromfile(LINEAR))
    model = MODELS.build(cfg.model)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, objects = [m.training for m in model.modules()], [id(p) for p in model.parameters()]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    counted = count_flops(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes and [id(p) for p in model.parameters()] == objects
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    # the encoder is frozen: only the head's weights (32 x 2) have a gradient
    assert counted['train'] - counted['forward'] == 2 * 32 * 2


def test_a_compiled_denoiser_is_counted_without_compiling():
    model = generator()
    model.denoiser.compile(backend=lambda *args: pytest.fail('compiled'))
    assert count_flops(model)['forward'] == dit_flops()


@pytest.mark.parametrize(
    ('path', 'stage', 'encodes'),
    [
        (LATENTS, 'pretraining', False),
        (ONLINE, 'pretraining', True),
        (LINEAR, 'classification', True),
        (SIT, 'generation', False),
        (UPERNET, 'segmentation', True),
    ],
)
def test_a_run_writes_its_facts(path, stage, encodes, small_world, tmp_path):
    shrinks = {SIT: partial(shrink_generation, small_world), UPERNET: partial(shrink_segmentation, small_world)}
    shrink, batch = shrinks.get(path, small_world.shrink), 2 if path == UPERNET else 4
    cfg = shrink(Config.fromfile(path))
    cfg.default_hooks.run_info = dict(type='RunInfoHook')
    cfg.work_dir, cfg.val_cfg, cfg.val_dataloader, cfg.val_evaluator = str(tmp_path), None, None, None
    cfg.optim_wrapper.accumulative_counts = 3
    cfg.default_hooks.checkpoint.interval = 3
    runner = Runner.from_cfg(cfg)
    runner.train()
    info = json.loads((tmp_path / runner.timestamp / 'run_info.json').read_text())
    assert list(info) == KEYS
    assert (info['config'], info['stage'], info['model']) == (path.split('/')[-1], stage, cfg.model.type)
    assert info['flops_per_sample'] > 0 and info['train_flops_per_sample'] > info['flops_per_sample']
    expected = dict(world_size=1, batch_size=batch, accumulative_counts=3, online_encoding=encodes, seed=0, start_iter=0,
                    max_iters=1, log_window=10, network='USPViT', iters_per_epoch=1)  # fmt: skip
    if stage == 'generation':
        expected.update(network='SiT', iters_per_epoch=None)
    if stage == 'segmentation':
        expected.update(iters_per_epoch=None)
        assert runner.model.backbone.codec.device == torch.device('cpu')  # the VAE was set aside, and is back
    assert {key: info[key] for key in expected} == expected
    log = read_run(tmp_path)
    assert log.info == info and log.steps.tolist() == [1] and log.samples.tolist() == [batch] and log.seconds[0] > 0
    assert info['parameters'] == sum(p.numel() for p in runner.model.parameters() if p.requires_grad)


@pytest.mark.parametrize(('counts', 'told'), [((2, 2), 2), ((2, 4), dict(one=2, two=4))])
def test_several_optimizers_and_a_sampler_of_batches(counts, told):
    def wrapper(count):
        return OptimWrapper(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), accumulative_counts=count)

    batches = BatchSampler(SequentialSampler(range(8)), 4, drop_last=False)
    info = run_info(
        SimpleNamespace(
            model=nn.Linear(2, 2), cfg=SimpleNamespace(filename=None), experiment_name='linear',
            train_dataloader=DataLoader(range(8), batch_sampler=batches), train_loop=None,
            optim_wrapper=OptimWrapperDict(one=wrapper(counts[0]), two=wrapper(counts[1])), seed=1, iter=0, max_iters=9,
            log_processor=SimpleNamespace(window_size=10), logger=SimpleNamespace(warning=print),
        )
    )  # fmt: skip
    assert (info['batch_size'], info['accumulative_counts']) == (4, told)


def test_an_unknown_model_is_noted_and_trains():
    warnings = []
    runner = SimpleNamespace(
        model=nn.Linear(2, 2),
        cfg=SimpleNamespace(filename=None),
        experiment_name='linear',
        train_dataloader=SimpleNamespace(batch_size=5, dataset=[]),
        train_loop=None,
        optim_wrapper=None,
        seed=1,
        iter=7,
        max_iters=9,
        log_processor=SimpleNamespace(window_size=10),
        logger=SimpleNamespace(warning=warnings.append),
    )
    info = run_info(runner)
    assert info['flops_per_sample'] is None and info['train_flops_per_sample'] is None
    assert warnings == ['floating-point operations are not counted: TypeError: no way to count the operations of a Linear']
    assert (info['config'], info['stage'], info['parameters'], info['start_iter']) == ('linear', 'Linear', 6, 7)
    assert info['online_encoding'] is False and info['iters_per_epoch'] is None
