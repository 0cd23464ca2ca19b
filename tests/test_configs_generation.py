"""Every DiT and SiT config: the name tells the truth, the recipe is the paper's, and it trains, samples, scores and saves."""

import json
import re

import pytest
import torch
from helpers.small_generation import GENERATION, shrink_generation
from helpers.small_world import load_leaf, train_quickly

from usp_mm.analysis.complexity import build_meta
from usp_mm.engine.checks.config import check_config
from usp_mm.presets import VAES

NAME = re.compile(
    r'(?P<model>dit|sit)-(?P<arch>tiny|small|base|large|xl)-p(?P<patch>\d)(?:_(?P<start>usp|mae|sft)-pre)?(?:_(?P<variant>[a-z0-9-]+))?'
    r'_(?P<gpus>\d+)xb(?P<batch>\d+)(?P<amp>-amp)?-(?P<steps>\d+)k_(?P<data>in1k|digits|own|emoji)(?:-(?P<px>\d+)px)?(?P<latents>-latents)?'
)
#: What the other configs have, and a variant's name says it has otherwise.
COMMON = dict(
    scale=1.0,
    sampler=None,
    vae='sd-f8d4',
    gate_bias=0.0,
    keep_layers=None,
    load_norms=True,
    block='plain',
    repa=None,
    route=None,
)
VARIANTS = {
    'cfg': dict(scale=1.5),
    'ode': dict(sampler='ODESampler'),
    'noaffine': dict(load_norms=False),
    'gate1': dict(gate_bias=1.0),
    'repa': dict(repa=('dinov2-b', 8, 0.5)),
    **{f'rand{n}': dict(keep_layers=12 - n) for n in (2, 4, 6)},
    **{vae: dict(vae=vae) for vae in ('sd-f8d4-mse', 'kl-f16d16', 'va-f16d32')},
    'va-f16d32-cfg': dict(vae='va-f16d32', scale=10.0),
    'va-f16d32-lightning': dict(vae='va-f16d32', block='lightning'),
    'va-f16d32-lightning-cfg': dict(vae='va-f16d32', scale=10.0, block='lightning'),
    'lightning': dict(block='lightning'),
    'tread': dict(route=dict(keep=0.5, start=2, end=-4)),
    'denoising-loss': {},
}
IMAGENET = [path for path in GENERATION if '_in1k' in path.stem]
DEMO = [
    path
    for path in GENERATION
    if path.stem.endswith(('_digits', '_emoji-128px')) and 'usp-pre' in path.stem and '_repa_' not in path.stem
]
TABLE_3 = [path for path in IMAGENET if '8xb128-80k' in path.stem]
leaves = pytest.mark.parametrize('path', GENERATION, ids=lambda p: p.stem)
table_14 = pytest.mark.parametrize('path', [path for path in IMAGENET if path not in TABLE_3], ids=lambda p: p.stem)
imagenet = pytest.mark.parametrize('path', IMAGENET, ids=lambda p: p.stem)
table_3 = pytest.mark.parametrize('path', TABLE_3, ids=lambda p: p.stem)


def load(path):
    """The config, and what its name says."""
    name = NAME.fullmatch(path.stem)
    assert name, f'{path.stem} does not follow the convention'
    return load_leaf(path), name


@leaves
def test_the_name_tells_the_truth(path):
    cfg, name = load(path)
    small = name['data'] in ('digits', 'own', 'emoji')
    assert cfg.train_dataloader.batch_size == int(name['batch'])
    assert cfg.auto_scale_lr.base_batch_size == int(name['gpus']) * int(name['batch'])
    assert cfg.train_cfg.max_iters == int(name['steps']) * 1000 and cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0
    assert cfg.optim_wrapper.type == ('AutocastOptimWrapper' if name['amp'] else 'OptimWrapper')
    model, denoiser = cfg.model, cfg.model.denoiser
    assert (denoiser.type.lower(), denoiser.arch) == (name['model'], name['arch'])
    assert model.objective.type == {'dit': 'DDPMObjective', 'sit': 'FlowObjective'}[name['model']]
    assert denoiser.img_size == int(name['px'] or 64)
    assert int(name['patch']) == denoiser.get('patch_size', VAES[model.data_preprocessor.vae.name]['patch_size'])
    assert denoiser.num_classes == {'in1k': 1000, 'emoji': 8}.get(name['data'], 10)
    if name['data'] != 'emoji':  # whose validation samples nothing
        assert cfg.test_dataloader.dataset.num_classes == denoiser.num_classes
    dataset = cfg.train_dataloader.dataset
    assert dataset.type == ('LatentCacheDataset' if name['latents'] or small else 'ImageFolder')
    if dataset.type == 'ImageFolder':
        assert [step.size for step in dataset.pipeline if step.type == 'ADMCenterCrop'] == [denoiser.img_size]
    elif not small:
        assert dataset.data_root == f'data/imagenet_latents/{model.data_preprocessor.vae.name}_{denoiser.img_size}px'
        stats = f'{dataset.data_root}/manifest.json' if model.data_preprocessor.vae.name == 'va-f16d32' else None
        assert model.data_preprocessor.vae.get('stats') == stats


@leaves
def test_the_start_and_the_variant_are_those_of_the_name(path):
    cfg, name = load(path)
    model, init = cfg.model, cfg.model.denoiser.get('init_cfg')
    assert (init is not None) == (name['start'] is not None)
    if init is not None:
        assert init.type == 'USPPretrained' and init.checkpoint is None
        assert init.get('load_patch_embed', True) == (name['start'] != 'mae')
        assert init.get('pos_interp', 'bicubic') == ('bilinear' if name['px'] == '512' else 'bicubic')
        with pytest.raises(ValueError, match=r'model\.denoiser\.init_cfg\.checkpoint is unset'):
            check_config(cfg)
    # plain DiT and SiT have no affine norms, LightningDiT has; the demo's two arms are one network
    lightning = 'lightning' in (name['variant'] or '')
    plain = name['variant'] == 'noaffine' or (init is None and name['data'] not in ('digits', 'emoji') and not lightning)
    assert model.denoiser.get('norm_affine', True) == (not plain)
    init, repa = init or {}, model.get('repa')
    found = dict(
        scale=model.guidance.scale,
        sampler=None if model.sampler.type in ('AncestralSampler', 'SDESampler') else model.sampler.type,
        vae=model.data_preprocessor.vae.name,
        gate_bias=model.denoiser.get('gate_bias', 0.0),
        keep_layers=init.get('keep_layers'),
        load_norms=init.get('load_norms', True),
        block=model.denoiser.get('block', 'plain'),
        repa=(repa.teacher.name, repa.depth, repa.get('weight', 0.5)) if repa else None,
        route=model.denoiser.get('route'),
    )
    data = {'digits': dict(vae='tiny'), 'own': dict(vae='laptop'), 'emoji': dict(vae='laptop'), 'in1k': {}}[name['data']]
    if name['data'] == 'digits' and repa:
        data['repa'] = ('usp-digits', 2, 0.5)
    if name['data'] == 'emoji' and repa:
        data['repa'] = ('usp-emoji', 6, 0.5)
    if name['data'] == 'digits' and name['variant'] == 'tread':
        data['route'] = dict(keep=0.5, start=1, end=-1)
    recipe = dict(sampler='ODESampler') if lightning or path in TABLE_3 else {}
    assert found == {**COMMON, **VARIANTS.get(name['variant'], {}), **data, **recipe}
    assert name['variant'] is None or name['variant'] in VARIANTS


@table_14
def test_the_recipe_is_table_14(path):
    cfg, name = load(path)
    model = cfg.model
    assert dict(cfg.optim_wrapper.optimizer) == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0)
    assert not cfg.get('param_scheduler')  # constant
    assert model.ema.momentum == 1e-4 and model.denoiser.class_dropout == 0.1 and model.guidance['channels'] == 3
    assert model.data_preprocessor.posterior == 'sample' and cfg.auto_scale_lr.base_batch_size == 256
    if model.sampler.type != 'ODESampler':
        assert model.sampler.num_steps == 250
    if model.sampler.type == 'SDESampler':
        assert (model.sampler.method, model.sampler.diffusion) == ('euler', 'sigma')
        assert (model.sampler.last_step, model.sampler.last_step_size) == ('mean', 0.04)
    assert cfg.val_dataloader.dataset.num_samples == 50_000 and cfg.val_dataloader.dataset.label_mode == 'random'
    assert ('512' in cfg.val_evaluator.metrics.reference) == (name['px'] == '512')


@table_3
def test_the_recipe_is_table_3(path):
    cfg, name = load(path)
    model, guided = cfg.model, name['variant'].endswith('cfg')
    assert dict(cfg.optim_wrapper.optimizer) == dict(type='AdamW', lr=2e-4, betas=(0.9, 0.95), weight_decay=0.0)
    assert not cfg.get('param_scheduler') and cfg.auto_scale_lr.base_batch_size == 1024
    assert 80_000 == pytest.approx(64 * 1_281_167 / 1024, rel=1e-3) == cfg.train_cfg.max_iters
    assert (model.ema.momentum, model.denoiser.class_dropout, model.data_preprocessor.posterior) == (1e-4, 0.1, 'sample')
    times = dict(path='linear', prediction='velocity', times='logit_normal', cosine_weight=1.0)
    assert dict(model.objective) == dict(type='FlowObjective', **times)
    shift = dict(timestep_shift=0.3) if guided else {}
    assert dict(model.sampler) == dict(type='ODESampler', method='euler', num_steps=250, **shift)
    interval = dict(interval=(0.10, 1.0)) if guided else {}
    assert dict(model.guidance) == dict(scale=10.0 if guided else 1.0, channels=3, **interval)
    assert cfg.val_dataloader.dataset.num_samples == 50_000 and not model.denoiser.learn_sigma


@imagenet
def test_full_size_has_the_parameters_of_table_1(path):
    cfg, name = load(path)
    denoiser = build_meta(cfg).denoiser
    millions = {'base': 130, 'large': 458, 'xl': 675}[name['arch']]
    assert sum(p.numel() for p in denoiser.parameters() if p.requires_grad) == pytest.approx(millions * 1e6, rel=0.01)
    assert all(p.is_meta for p in denoiser.parameters())


@leaves
def test_testing_is_validation(path):
    cfg, name = load(path)
    if name['variant'] != 'denoising-loss':
        assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator
        return
    plain = load_leaf(str(path).replace('_denoising-loss', ''))
    for key in ('model', 'train_dataloader', 'optim_wrapper', 'test_dataloader', 'test_evaluator', 'default_hooks'):
        assert cfg[key] == plain[key], key
    dataset = cfg.val_dataloader.dataset
    assert cfg.val_evaluator.metrics == dict(type='DenoisingLoss', num_times=20)
    assert (dataset.type, dataset.flip) == ('LatentCacheDataset', False)
    assert dataset.data_root == plain.train_dataloader.dataset.data_root.replace('train', 'val')


@pytest.mark.parametrize('path', DEMO, ids=str)
def test_the_demo_arms_differ_in_the_start_alone(path):
    started = load_leaf(path)
    scratch = load_leaf(str(path).replace('_usp-pre', ''))
    del started.model.denoiser['init_cfg']
    assert started.to_dict() == scratch.to_dict()


@leaves
def test_trains_samples_scores_and_saves(path, small_world, tmp_path):
    check_config(load_leaf(path), initialises=False)
    cfg = shrink_generation(small_world, load_leaf(path))
    del cfg.default_hooks['run_info']  # it counts operations, which takes longer than the training
    check_config(cfg)
    assert train_quickly(cfg, tmp_path).iter == 1
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    records = {key: value for line in scalars for key, value in json.loads(line).items()}
    score = 'denoising_loss' if 'denoising-loss' in path.stem or '_emoji' in path.stem else 'Feature/FD'
    assert torch.isfinite(torch.tensor([records['loss'], records[score]])).all()
    assert len(list(tmp_path.glob('*/vis_data/vis_image/samples_1.png'))) == 1
    state = torch.load(tmp_path / 'iter_1.pth', map_location='cpu', weights_only=True)['state_dict']
    repa = {'repa'} if 'repa' in cfg.model else set()
    assert {key.split('.')[0] for key in state} == {'denoiser', 'denoiser_ema'} | repa
    assert (-1 <= records['repa'] <= 1) if repa else 'repa' not in records
    depth = {key.split('.')[2] for key in state if key.startswith('denoiser.blocks.')}
    assert depth == {'0', '1'}
