"""--fast: what it writes into a config, what it leaves, and what it says."""

import pytest
import torch
from helpers.small_world import load_leaf
from mmengine.config import Config

from usp_mm.cli import sample
from usp_mm.engine.checks.config import check_config
from usp_mm.engine.optim import amp
from usp_mm.engine.starting.fast import make_fast

USP = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
TRAINED_VAE = 'configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py'
MAE = 'configs/usp/mae_vit-base_64xb64-amp-coslr-800e_in1k.py'
UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'
SIT = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py'


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)


@pytest.mark.parametrize('path', [USP, LINEAR, SIT, UPERNET])
def test_a_training_on_a_gpu(path, gpu):
    cfg = load_leaf(path)
    check_config(cfg, initialises=False)  # as the tools do
    lines = make_fast(cfg)
    check_config(cfg, initialises=False)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper' and cfg.model.compile == 'blocks'
    assert cfg.model.get('sample_dtype') == ('bfloat16' if path == SIT else None)
    assert cfg.optim_wrapper.optimizer.get('fused') is (None if path == LINEAR else True)
    vae = cfg.model.backbone.vae.dtype if path == UPERNET else cfg.model.data_preprocessor.vae.dtype
    assert vae == 'bfloat16'
    assert lines[0].startswith('--fast: bfloat16 autocast') and "model.compile='blocks'" in lines[0]
    assert ('--fast leaves optim_wrapper.optimizer as it is: MAELARS has no fused kernels' in lines) == (path == LINEAR)


def test_a_cpu_has_no_fused_optimizer():
    cfg = load_leaf(USP)
    assert '--fast leaves optim_wrapper.optimizer as it is: fused ones are for GPUs' in make_fast(cfg)
    assert 'fused' not in cfg.optim_wrapper.optimizer


def test_what_is_set_already_stays():
    cfg = load_leaf(SIT)
    cfg.model.compile, cfg.model.data_preprocessor.vae.dtype = dict(region='loss'), 'float16'
    lines = make_fast(cfg, 'sample')
    assert cfg.model.compile == dict(region='loss') and cfg.model.data_preprocessor.vae.dtype == 'float16'
    assert "--fast leaves model.compile={'region': 'loss'} as it is" in lines
    assert "--fast leaves model.data_preprocessor.vae.dtype='float16' as it is" in lines
    assert cfg.optim_wrapper == load_leaf(SIT).optim_wrapper


def test_a_trained_vae_and_pixels_stay_in_float32():
    cfg = load_leaf(TRAINED_VAE)
    assert '--fast leaves model.data_preprocessor.vae.dtype float32: the VAE is trained' in make_fast(cfg)
    mae = load_leaf(MAE)
    make_fast(mae)
    assert 'dtype' not in {*cfg.model.data_preprocessor.vae, *mae.model.data_preprocessor.vae}


def test_a_test_and_models_of_others():
    cfg = Config(dict(model=dict(type='mmpretrain.ImageClassifier'), test_cfg=dict()))
    lines = make_fast(cfg, 'test')
    assert cfg.test_cfg.fp16 is True and cfg.model == dict(type='mmpretrain.ImageClassifier')
    assert '--fast leaves mmpretrain.ImageClassifier eager: it is no model of this package, with an argument `compile`' in lines


def test_a_wrapper_that_casts_is_refused():
    cfg = load_leaf(USP)
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match=r'--fast: optim_wrapper\.type is ApexOptimWrapper, .*leave out --fast, or set'):
        make_fast(cfg)


@pytest.mark.parametrize(('instructions', 'slow'), [((), True), (('amx_bf16',), False), (None, False)])
def test_a_cpu_without_bfloat16_is_told(instructions, slow, monkeypatch):
    monkeypatch.setattr(amp, 'bfloat16_instructions', lambda: instructions)
    assert make_fast(load_leaf(USP))[-1].startswith('--fast: this processor has no bfloat16 instructions') == slow


def test_a_test_of_a_generator_lays_out_inception():
    cfg = load_leaf(SIT)
    lines = make_fast(cfg, 'test')
    check_config(cfg, initialises=False)
    assert cfg.test_evaluator.metrics.channels_last is True and 'ADMMetrics.channels_last=True' in lines[0]
    assert 'channels_last' not in cfg.val_evaluator.metrics
    cfg = load_leaf(SIT)
    cfg.test_evaluator.metrics.channels_last = False
    assert 'ADMMetrics' not in make_fast(cfg, 'test')[0] and cfg.test_evaluator.metrics.channels_last is False


@pytest.mark.parametrize('instructions', [(), ('amx_bf16',)])
def test_amp_of_sampling_tells_of_a_slow_cpu(instructions, monkeypatch):
    monkeypatch.setattr(amp, 'bfloat16_instructions', lambda: instructions)
    monkeypatch.setattr('sys.argv', ['sample.py', SIT, 'x.pth', '--amp', '--num', '4', '--out', 'x.npz'])
    told = sample.apply_flags(load_leaf(SIT), sample.parse_args())
    assert [line.startswith('--amp: this processor has no bfloat16 instructions') for line in told] == [True] * (
        not instructions
    )
