"""--amp over every wrapper that a config may have."""

import pytest
from mmengine.config import Config

from usp_mm.engine.checks.config import check_config
from usp_mm.engine.optim import amp
from usp_mm.engine.optim.amp import train_in_bfloat16

CONFIG = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'


def config(**wrapper):
    return Config(dict(model=dict(type='USP'), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), **wrapper)))


@pytest.mark.parametrize('kind', [{}, dict(type='OptimWrapper'), dict(type='AutocastOptimWrapper')])
def test_plain_wrappers(kind):
    cfg = config(accumulative_counts=2, **kind)
    train_in_bfloat16(cfg)
    assert cfg.optim_wrapper.to_dict() == dict(
        type='AutocastOptimWrapper', optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2
    )


def test_loss_scaling_gives_way_and_the_log_says_so(monkeypatch):
    told = []
    monkeypatch.setattr(amp, 'print_log', lambda line, *_, **__: told.append(line))
    cfg = Config.fromfile(CONFIG)
    cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16', clip_grad=dict(max_norm=1.0))
    train_in_bfloat16(cfg)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.optim_wrapper.keys() & {'loss_scale', 'dtype', 'clip_grad'} == {'clip_grad'}
    check_config(cfg)
    assert len(told) == 1
    assert "takes the place of optim_wrapper AmpOptimWrapper (dtype='float16', loss_scale='dynamic')" in told[0]


def test_several_wrappers():
    one = dict(optimizer=dict(type='SGD', lr=0.1))
    cfg = Config(
        dict(
            model=dict(type='x'),
            optim_wrapper=dict(constructor='C', a=dict(type='AmpOptimWrapper', loss_scale=512.0, **one), b=one),
        )
    )
    train_in_bfloat16(cfg)
    assert [cfg.optim_wrapper[name].type for name in 'ab'] == ['AutocastOptimWrapper'] * 2
    assert cfg.optim_wrapper.constructor == 'C' and 'loss_scale' not in cfg.optim_wrapper.a


def test_what_is_refused():
    with pytest.raises(ValueError, match=r'--amp: optim_wrapper\.type is ApexOptimWrapper, .*leave out --amp, or set'):
        train_in_bfloat16(config(type='ApexOptimWrapper'))
    with pytest.raises(ValueError, match='--amp: the config has no optim_wrapper'):
        train_in_bfloat16(Config(dict(model=dict(type='USP'))))


@pytest.mark.parametrize(
    ('instructions', 'gpu', 'slow'),
    [((), False, True), ((), True, False), (('avx512_bf16',), False, False), (None, False, False)],
)
def test_a_processor_without_instructions_for_it_is_told(instructions, gpu, slow, monkeypatch):
    monkeypatch.setattr(amp, 'bfloat16_instructions', lambda: instructions)
    monkeypatch.setattr('torch.cuda.is_available', lambda: gpu)
    line = amp.slow_bfloat16()
    assert (line is not None) == slow
    assert not slow or line.startswith('--amp: this processor has no bfloat16 instructions (avx512_bf16, amx_bf16)')


def test_a_generator_samples_likewise():
    cfg = config()
    cfg.model.denoiser = dict(type='SiT')
    train_in_bfloat16(cfg)
    assert cfg.model.sample_dtype == 'bfloat16'
