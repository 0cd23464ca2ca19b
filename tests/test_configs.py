"""Every leaf config says what it is; of pretraining and understanding, the name tells the truth, and it builds and steps.

Generation configs have test_configs_generation.py for that, feature extractors test_configs_features.py.
"""

import ast
import json
import re
from functools import cache

import pytest
import torch
import yaml
from helpers.small_world import ROOT, load_leaf, train_quickly

from usp_mm.analysis.complexity import build_meta
from usp_mm.engine.checks.config import check_config
from usp_mm.presets import ARCHS

LEAVES = sorted(p.relative_to(ROOT) for p in (ROOT / 'configs').glob('[!_]*/*.py'))
USP = [path for path in LEAVES if path.parts[1] in ('usp', 'vit')]
leaves = pytest.mark.parametrize('path', USP, ids=lambda p: p.stem)


@cache
def models_of(folder):
    """The entries of a folder's metafile."""
    return yaml.safe_load((ROOT / folder / 'metafile.yml').read_text())['Models']


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_docstring_gives_the_command(path):
    assert str(path) in ast.get_docstring(ast.parse((ROOT / path).read_text()))


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_a_training_can_go_on_within_an_epoch_on_other_numbers_of_processes(path):
    """The order of the samples has to be a function of the seed and of what was seen; test_resume_runs.py runs it."""
    cfg = load_leaf(path)
    if cfg.get('train_cfg'):
        found = cfg.train_cfg.type, cfg.train_dataloader.sampler.type
        assert found in [('EpochBasedTrainLoop', 'EpochSampler'), ('PositionedIterTrainLoop', 'EpochInfiniteSampler')]


@leaves
def test_the_name_tells_the_truth(path):
    cfg = load_leaf(path)
    name = path.stem
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)-', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    assert cfg.auto_scale_lr.base_batch_size == gpus * batch
    assert cfg.train_cfg.max_epochs == int(re.search(r'-(\d+)e_', name).group(1))
    assert cfg.optim_wrapper.type == ('AutocastOptimWrapper' if '-amp-' in name else 'OptimWrapper')
    if 'linear' not in name and path.parts[1] == 'vit':
        assert cfg.model.backbone.out_type == ('cls_token' if 'cls-token' in name else 'avg_featmap')
        assert cfg.model.data_preprocessor.mix_space == ('image' if 'image-mix' in name else 'latent')
        assert cfg.model.backbone.get('train_vae', False) == ('train-vae' in name)
    assert cfg.model.backbone.arch == re.search(r'vit-(\w+?)_', name).group(1)
    size = 64 if name.endswith(('_digits', '_own')) else int((re.search(r'(\d+)px', name) or ['', 224])[1])
    assert cfg.model.backbone.img_size == size
    vae = re.search('kl-f16d16|va-f16d32', name)
    default = 'pixel' if 'mae' in name else 'laptop' if name.endswith(('_own', '_emoji-128px')) else 'sd-f8d4'
    vae = 'tiny' if 'digits' in name and 'mae' not in name else vae[0] if vae else default
    assert cfg.model.data_preprocessor.vae.name == vae
    dataset = cfg.train_dataloader.dataset
    if 'latents' in name:
        assert dataset.data_root == f'data/imagenet_latents/{vae}_{size}px'
    if vae == 'va-f16d32':
        assert cfg.model.data_preprocessor.vae.stats == f'{dataset.data_root}/manifest.json'
    assert cfg.model.backbone.get('block', 'plain') == ('lightning' if 'lightning' in name else 'plain')
    if 'linear' in name:
        depth = {'tiny': 4, 'base': 12, 'large': 24, 'xl': 28}[cfg.model.backbone.arch]
        assert cfg.model.backbone.frozen_stages == depth
    assert 'end' not in cfg.param_scheduler[-1]  # runs to the end of training, however long


@leaves
def test_builds_small_and_steps(path, small_world, tmp_path):
    cfg = small_world.shrink(load_leaf(path), img_size=64)
    del cfg.default_hooks['run_info']  # it counts operations, which takes longer than the training
    check_config(cfg)
    runner = train_quickly(cfg, tmp_path)
    assert runner.iter == 1
    records = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert torch.isfinite(torch.tensor(records[0]['loss']))
    assert {key.split('.')[0] for key in runner.model.state_dict()} <= {'backbone', 'neck', 'head'}


def test_every_leaf_stands_in_a_metafile_of_the_model_index():
    listed = []
    for metafile in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        listed += [model['Config'] for model in yaml.safe_load((ROOT / metafile).read_text())['Models']]
    assert sorted(listed) == sorted(map(str, LEAVES))


@leaves
def test_full_size_has_the_blocks_of_table_1(path):
    """On the meta device, from 86 M (base) to 450 M (XL) in the encoder."""
    cfg = load_leaf(path)
    backbone, row = build_meta(cfg).backbone, ARCHS[cfg.model.backbone.arch]
    width = row['embed_dims']
    assert len(backbone.blocks) == row['depth'] and backbone.blocks[0].attn.num_heads == row['num_heads']
    block = 12 * width * width + 13 * width  # four layers with a bias, and two norms
    if cfg.model.backbone.get('block') == 'lightning':  # a gated MLP of two thirds the hidden width, norms without bias
        hidden = 4 * width * 2 // 3
        block = 4 * width * width + 3 * width * hidden + 2 * hidden + 7 * width
    assert sum(p.numel() for p in backbone.blocks.parameters()) == row['depth'] * block
    assert all(p.is_meta for p in backbone.parameters())


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_readme_and_metafile_give_the_papers_numbers_of_the_docstring(path):
    lines = ast.get_docstring(ast.parse((ROOT / path).read_text())).splitlines()
    paper = [line.partition(': ')[2].removesuffix('.') for line in lines if line.startswith('Paper')]
    listed = next(model['Metadata']['Paper'] for model in models_of(path.parent) if model['Config'] == str(path))
    row = next(r for r in (ROOT / path.parent / 'README.md').read_text().splitlines() if f'| [{path.stem}]({path.name})' in r)
    assert listed == (paper[0] if paper else 'no number in the paper')
    assert row.split('|')[2].strip() == (paper[0] if paper else '–')
