"""Older names of arguments, config keys, options and values do what the names of now do, and say so."""

import inspect
import warnings
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from helpers.small_world import ROOT
from mmengine.config import Config

from usp_mm.cli import evaluate, knn, likelihood, probe_layers, sample
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.engine.checks.config import check_config
from usp_mm.evaluation import ADMMetrics, FeatureMetrics
from usp_mm.evaluation.report import SAMPLING, build_report
from usp_mm.models import USP
from usp_mm.probing.knn_probe import feature_key
from usp_mm.renaming.arguments import older_arguments, recorded_weights, weights_name
from usp_mm.sampling.plan import differences

NOISE = 'configs/usp/usp_vit-base_noise_64xb64-amp-coslr-800e_in1k.py'
SIT = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'
WORDS = ('config.py', 'x.pth')
COMMANDS = {sample: WORDS, likelihood: (*WORDS, '--data', 'folder'), knn: WORDS, probe_layers: WORDS}


@pytest.fixture
def silent():
    """No warning may come."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        yield


def parsed(command, monkeypatch, *words):
    monkeypatch.setattr('sys.argv', ['tool', *words])
    return command.parse_args()


def test_names_of_weights():
    with pytest.warns(FutureWarning, match=r"^'orig', of weights, is now 'model': the older name goes in the next release$"):
        assert weights_name('orig') == 'model'


def test_names_of_now_and_what_is_recorded_are_taken_silently(silent):
    assert [weights_name(name) for name in ('ema', 'model', None, 'emma')] == ['ema', 'model', None, 'emma']
    assert [recorded_weights(name) for name in ('orig', 'ema', None)] == ['model', 'ema', None]


@pytest.mark.parametrize('command', COMMANDS, ids=lambda command: command.__name__)
def test_weights_on_the_command_line(command, monkeypatch, capsys):
    words = COMMANDS[command]
    assert parsed(command, monkeypatch, *words).weights is None
    assert [parsed(command, monkeypatch, *words, '--weights', name).weights for name in ('ema', 'model')] == ['ema', 'model']
    with pytest.warns(FutureWarning, match=r"'orig', of weights, is now 'model'"):
        assert parsed(command, monkeypatch, *words, '--weights', 'orig').weights == 'model'
    with pytest.warns(FutureWarning, match='^--sample-model is now --weights: the older name goes in the next release$'):
        assert parsed(command, monkeypatch, *words, '--sample-model', 'orig').weights == 'model'
    for option in ('--weights', '--sample-model'):
        with pytest.raises(SystemExit):
            parsed(command, monkeypatch, *words, option, 'emma')
        assert "invalid choice: 'emma'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parsed(command, monkeypatch, '--help')
    told = capsys.readouterr().out
    assert '--weights {ema,model}' in told and '--sample-model' not in told


def test_image_size_of_the_command_line(monkeypatch):
    words = ('samples.npz', '--ref', 'r.npz')
    assert parsed(evaluate, monkeypatch, *words).img_size is None
    assert parsed(evaluate, monkeypatch, *words, '--img-size', '64').img_size == 64
    with pytest.warns(FutureWarning, match='^--image-size is now --img-size'):
        assert parsed(evaluate, monkeypatch, *words, '--image-size', '64').img_size == 64


def test_image_size_of_a_cache():
    with pytest.warns(FutureWarning, match='^image_size of CacheSpec is now img_size'):
        assert asdict(CacheSpec(image_size=64, flip=False)) == asdict(CacheSpec(64, flip=False))
    with pytest.raises(ValueError, match=r'^CacheSpec: image_size=64 is the older name of img_size: leave image_size out$'):
        CacheSpec(32, image_size=64)


@pytest.mark.parametrize('metric', [ADMMetrics, FeatureMetrics], ids=lambda metric: metric.__name__)
def test_image_size_of_a_metric(metric, tmp_path):
    """As a config has it: it passes the check, and reaches the reference."""
    cfg = Config.fromfile(ROOT / SIT)
    args = dict(type=metric.__name__, reference=str(tmp_path / 'none'), image_size=32)
    cfg.val_evaluator = dict(type='mmagic.Evaluator', metrics=[args])
    check_config(cfg)
    given = (dict(type='PixelFeatures'), args['reference']) if metric is FeatureMetrics else (args['reference'],)
    warned = pytest.warns(FutureWarning, match=f'^image_size of {metric.__name__} is now img_size')
    with warned, pytest.raises(FileNotFoundError):
        metric(*given, image_size=32)


def test_range_of_noise_levels():
    cfg = Config.fromfile(ROOT / NOISE)
    assert tuple(cfg.model.alpha_bar_range) == (0.5, 1.0)
    arguments = dict(backbone=dict(type='USPViT', arch='tiny', img_size=64), data_preprocessor=dict(load_vae=False))
    with pytest.warns(FutureWarning, match='^noise_alpha_bar of USP is now alpha_bar_range'):
        assert USP(**arguments, noise_alpha_bar=(0.25, 1.0)).alpha_bar_range == (0.25, 1.0)
    cfg.model.noise_alpha_bar = cfg.model.pop('alpha_bar_range')
    check_config(cfg)
    cfg.model.noise_alpha_bars = cfg.model.pop('noise_alpha_bar')
    with pytest.raises(ValueError, match="unknown key 'noise_alpha_bars' in model"):
        check_config(cfg)


def test_the_signature_has_both():
    @older_arguments(old='new')
    def function(first, new=1, **rest):
        return first, new, rest

    assert list(inspect.signature(function).parameters) == ['first', 'new', 'old', 'rest']
    with pytest.warns(FutureWarning, match='^old of function is now new'):
        assert function(0, old=5, more=2) == (0, 5, {'more': 2})
    assert function(0, 3, old=None) == (0, 3, {})


def test_what_files_recorded_is_read(silent):
    plan = dict(seed=0, sample_model='model')
    assert differences(dict(seed=0, sample_model='orig'), plan) == ''
    assert differences(dict(seed=0, sample_model='ema'), plan) == "sample_model: 'ema' there, 'model' now"
    reference = SimpleNamespace(name='r', content_hash=lambda: '0', has_moments=True, images=None, img_size=32)
    report = build_report({}, 3, dict.fromkeys(SAMPLING) | dict(sample_model='orig'), reference, 0, 'pixels')
    assert report['sample_model'] == 'model' and report['reference']['image_size'] == 32


def test_kept_features_are_found_by_the_older_word():
    data = SimpleNamespace(cached=True, fingerprint=lambda: 'f', pipeline=None)
    for weights, recorded in (('model', 'orig'), ('ema', 'ema'), (None, None)):
        model = SimpleNamespace(objective=None, t=None, weights=weights, pool='mean')
        assert feature_key(model, data, 1, 'abc', {})['weights'] == recorded
