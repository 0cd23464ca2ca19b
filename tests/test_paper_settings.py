"""What configs set, and what the code takes by default, is what the paper's tables of settings print."""

import inspect
import re

import pytest
import torch
import yaml
from helpers.small_world import ROOT
from mmengine.config import Config

from usp_mm.evaluation import adm_metrics
from usp_mm.functional.metrics import inception_score, precision_recall
from usp_mm.layers.probe_head import ProbeHead
from usp_mm.models.ema import WeightAverage
from usp_mm.models.generator import EMA
from usp_mm.models.guidance import Guidance
from usp_mm.models.repa.alignment import REPA
from usp_mm.models.samplers import SDESampler
from usp_mm.models.usp import USP

TABLES = yaml.load((ROOT / 'docs/paper_tables.yml').read_text(), yaml.BaseLoader)['Tables']
SETTINGS = {
    f'{table["Table"]}, {row["Setting"]}': (row.get('Config') or table['Config'], row['Key'], row['Paper'])
    for table in TABLES for row in table.get('Settings', []) if row.get('Key', 'parameters') != 'parameters'
}  # fmt: skip
#: The paper's word -> what a config calls it.
WORDS = {
    'LARS': 'MAELARS',
    'cosine': 'CosineAnnealingLR',
    'BN without affine before a linear layer': 'ClsBatchNormNeck',
    'DDPM': 'AncestralSampler',
    'SDE Euler–Maruyama': 'euler',
}


def config(name):
    (path,) = (ROOT / 'configs').glob(f'*/{name}.py')
    return Config.fromfile(path, import_custom_modules=False)


def numbers(paper, cfg):
    """The paper's cell as numbers; None if it is a word."""
    if scaled := re.fullmatch(r'([\d.e-]+) × batch / 256', paper):
        return [float(scaled[1]) * cfg.auto_scale_lr.base_batch_size / 256]
    if difference := re.fullmatch(r'1 - ([\d.]+)', paper):
        return [1 - float(difference[1])]
    plain = paper.removesuffix(' (or 1600)').replace('400K', '400000')
    return [float(x) for x in plain.split(', ')] if re.fullmatch(r'[\d.e-]+(, [\d.e-]+)*', plain) else None


@pytest.mark.parametrize('setting', [name for name in SETTINGS if 'augmentation' not in name])
def test_configs_set_what_the_tables_print(setting):
    name, key, paper = SETTINGS[setting]
    cfg = config(name)
    value = cfg
    for part in key.split('.'):
        value = value[int(part)] if part.isdigit() else value[part]
    expected = numbers(paper, cfg)
    if expected is None:
        assert value == WORDS.get(paper, paper)
    else:
        assert list(value if isinstance(value, list | tuple) else [value]) == pytest.approx(expected, rel=1e-9)


def test_what_no_table_prints():
    """The official code's: a draw from the posterior for generators, no decay of vectors in pretraining."""
    for kind in ('dit', 'sit'):
        assert config(f'{kind}-base-p2_usp-pre_8xb32-400k_in1k-256px').model.data_preprocessor.posterior == 'sample'
    pretraining = config('usp_vit-base_64xb64-amp-coslr-800e_in1k').optim_wrapper
    assert pretraining.paramwise_cfg == dict(flat_decay_mult=0.0)


def test_defaults_of_the_code():
    def default(function, name):
        return inspect.signature(function).parameters[name].default

    assert default(USP.__init__, 'mask_ratio') == 0.75
    assert (Guidance().scale, Guidance().channels) == (1.0, 3)
    assert (default(REPA.__init__, 'weight'), default(REPA.__init__, 'depth')) == (0.5, 8)
    sampler = SDESampler()
    settings = (sampler.method, sampler.num_steps, sampler.diffusion, sampler.last_step, sampler.last_step_size)
    assert settings == ('euler', 250, 'sigma', 'mean', 0.04)
    assert default(inception_score, 'split_size') == 5000
    assert default(precision_recall, 'k') == adm_metrics.K == 3
    norm = ProbeHead(4, 2)[0]
    assert (norm.eps, norm.affine, norm.momentum) == (1e-6, False, 0.1)


def test_the_average_keeps_9999_parts_of_10000():
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = WeightAverage(network, **EMA)
    network.weight.data.fill_(2.0)
    average.update_parameters(network)
    assert float(average.module.weight) == pytest.approx(1.0001, abs=2e-7)
