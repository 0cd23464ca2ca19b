"""Classes of a user's own: nothing is refused in them but an argument that they certainly do not take."""

import inspect
from typing import NamedTuple

import pytest
from helpers.small_world import load_leaf
from mmengine._strategy import DDPStrategy
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS, LOOPS, MODELS, RUNNERS, STRATEGIES
from mmengine.runner import EpochBasedTrainLoop, FlexibleRunner, Runner

from usp_mm.engine.checks.config import accepted_keys, check_config, merge_cfg_options
from usp_mm.engine.checks.config.whole_config import misspelt_variables
from usp_mm.models import USPViT

CONFIG = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'


class OddModel:
    def __init__(self, pool=None, datasets=None, optimizer=None, metrics=None, pipeline=None, init_cfg=None, clip_grad=None,
                 batch_size: int = -1, max_iters=-1, parts=None, norm_cfg=None, extras=(), policies=None):  # fmt: skip
        pass


class OddNewOnly:
    def __new__(cls, width, depth=2):
        return super().__new__(cls)


class OddTuple(NamedTuple):
    width: int
    depth: int = 2


class OddMeta(type):
    def __call__(cls, kind, **kwargs):
        return super().__call__(**kwargs)


class OddMade(metaclass=OddMeta):
    def __init__(self, width):
        pass


class OddOne:
    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __init__(self, width, depth=2):
        pass


class OddHook(Hook):
    def __init__(self, stages, optimizer=None, batch_size=0):
        pass


class OddLoop(EpochBasedTrainLoop):
    def __init__(self, runner, dataloader, max_epochs=-1, **kwargs):
        super().__init__(runner, dataloader, max_epochs=max_epochs, **kwargs)


class OddData(BaseDataset):
    def __init__(self, splits=None, **kwargs):
        super().__init__(**kwargs)


class OddViT(USPViT):
    pass


class OddStrategy(DDPStrategy):
    pass


class OddRunner(Runner):
    def train(self):
        return self.cfg.get('num_classes'), self.cfg['strategy'], self.cfg.tempo


@pytest.fixture(autouse=True)
def registered():
    mine = [(MODELS, one) for one in (OddModel, OddNewOnly, OddTuple, OddMade, OddOne, OddViT)]
    mine += [(HOOKS, OddHook), (LOOPS, OddLoop), (DATASETS, OddData), (RUNNERS, OddRunner)]
    mine += [(STRATEGIES, OddStrategy)]
    for registry, one in mine:
        registry.register_module(module=one)
    yield
    for registry, one in mine:
        del registry.module_dict[one.__name__]


def check(**parts):
    check_config(Config(parts), initialises=False)


@pytest.mark.parametrize(
    'arguments',
    [
        dict(pool=dict(type='max')),
        dict(pool=dict(type='USPVit')),
        dict(pool=dict(type='')),
        dict(pool=dict(type='.x')),
        dict(pool=dict(type='this.that')),
        dict(pool=dict(type='zero', amount=1)),
        dict(pool=dict(type='bilinear', factor=2)),
        dict(pool=dict(type='BN', requires_grad=True)),
        dict(norm_cfg=dict(type='LN2d', requires_grad=True)),
        dict(norm_cfg=dict(type='mine')),
        dict(datasets=dict(train=dict(root='a'), val=dict(root='b'))),
        dict(datasets=[dict(root='a')]),
        dict(optimizer=dict(lr=1)),
        dict(metrics=dict(top=1)),
        dict(pipeline=dict(size=3)),
        dict(pipeline=[dict(type='mine')]),
        dict(policies=[dict(a=1)]),
        dict(init_cfg=dict(seed=1)),
        dict(clip_grad=dict(max=1)),
        dict(batch_size=-1),
        dict(batch_size=-2),
        dict(max_iters=0),
        dict(parts=dict(datasets=dict(optimizer=dict(lr=1)))),
        dict(extras=(dict(type='mine', metrics=dict(a=1)), 5, 'x')),
        dict(parts=dict(one=dict(type='USPViT', arch='base'))),
    ],
)
def test_what_stands_in_a_users_arguments_is_theirs(arguments):
    check(model=dict(type='OddModel', **arguments))


def test_no_module_is_imported_to_find_a_word(tmp_path, monkeypatch):
    (tmp_path / 'word_of_a_user.py').write_text('raise SystemExit("imported")\n')
    monkeypatch.syspath_prepend(tmp_path)
    check(model=dict(type='OddModel', pool=dict(type='word_of_a_user'), parts=dict(type='word_of_a_user.Max')))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(datasetz=1), "unknown key 'datasetz' in model: OddModel takes.*did you mean 'datasets'"),
        (dict(batch_size='many'), "model.batch_size='many': OddModel takes an integer"),
        (dict(pool=dict(type='USPViT', drop_path=1)), r"unknown key 'drop_path' in model\.pool: USPViT takes"),
        (dict(parts=dict(a=[dict(type='OddTuple', size=1)])), r"unknown key 'size' in model\.parts\.a\.0: OddTuple takes"),
        (dict(parts=dict(type='mmpretrain.VisionTransformer', archh=1)), "'archh' in model.parts: VisionTransformer takes"),
        (dict(pool=dict(type='USPViT', init_cfg=dict(seed=1))), r'model\.pool\.init_cfg has no type'),
    ],
)
def test_what_is_certainly_wrong_in_a_users_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        check(model=dict(type='OddModel', **arguments))


@pytest.mark.parametrize(('scope', 'kind'), [('mmpretrain', 'Albumentations'), ('mmseg', 'Albu')])
def test_types_of_albumentations(scope, kind):
    transform = dict(type=kind, transforms=[dict(type='RandomBrightnessContrast', p=0.2)])
    data = dict(type='OddData', pipeline=[transform])
    check(default_scope=scope, train_dataloader=dict(dataset=data))
    with pytest.raises(ValueError, match=f"unknown key 'transform' in .*pipeline.0: {kind} takes"):
        check(default_scope=scope, train_dataloader=dict(dataset=dict(data, pipeline=[dict(type=kind, transform=[])])))


def test_hooks_loops_and_data_of_a_user():
    check(
        custom_hooks=[dict(type='OddHook', stages=dict(a=dict(type='first')), optimizer=dict(lr=1), batch_size=0, priority=1)],
        train_cfg=dict(type='OddLoop', max_epochs=-1, val_interval=2),
        train_dataloader=dict(batch_size=2, dataset=dict(type='OddData', splits=dict(type='even'), data_root='a')),
    )


@pytest.mark.parametrize(
    ('parts', 'message'),
    [
        (dict(custom_hooks=[dict(type='OddHook', stage=1)]), "unknown key 'stage' in custom_hooks.0: OddHook takes"),
        (dict(train_cfg=dict(type='OddLoop', val_interval=0)), 'val_interval=0: OddLoop takes an integer of 1 or more'),
        (dict(train_cfg=dict(type='OddLoop', max_epoch=1)), "unknown key 'max_epoch' in train_cfg"),
        (dict(val_evaluator=dict(type='FeatureMetrics', batch_size=0)), 'batch_size=0: FeatureMetrics takes an integer of 1'),
        (dict(train_dataloader=dict(batch_size=0)), 'train_dataloader.batch_size=0: DataLoader takes an integer of 1 or more'),
        (dict(train_dataloader=dict(dataset=dict(type='OddData', pipeline=[dict(type='LoadImag')]))),
         r"unknown type 'LoadImag' in train_dataloader\.dataset\.pipeline\.0"),
        (dict(model=dict(type='OddViT', init_cfg=dict(seed=1))), r'model\.init_cfg has no type'),
        (dict(model=dict(type='OddViT', archh=1)), "unknown key 'archh' in model: OddViT takes"),
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=1), accumulative_counts=0)),
         'accumulative_counts=0: OptimWrapper takes an integer of 1 or more'),
    ],
)  # fmt: skip
def test_what_a_users_class_takes_of_its_base_is_the_bases(parts, message):
    """Their arguments that a base's `__init__` takes mean what they mean there."""
    with pytest.raises(ValueError, match=message):
        check(**parts)


@pytest.mark.parametrize(
    ('model', 'wrong'),
    [
        (dict(type='OddTuple', width=1, depth=3), dict(size=1)),
        (dict(type='OddNewOnly', width=1), dict(size=1)),
        (dict(type='OddOne', width=1), dict(size=1)),
        (dict(type='OddMade', kind='x', width=1), None),
    ],
)
def test_classes_that_are_not_built_by_init(model, wrong):
    check(model=model)
    if wrong:
        with pytest.raises(ValueError, match=r"unknown key 'size' in model: .* takes \['depth', 'width'\]"):
            check(model=dict(model, **wrong))


@pytest.mark.parametrize(
    'top',
    [
        dict(runner_type='FlexibleRunner', resume='x.pth'),
        dict(log_level=20),
        dict(log_level='INFO'),
        dict(runner_type='FlexibleRunner', log_level=20),
        dict(runner_type='FlexibleRunner', strategy=dict(type='OddStrategy')),
        dict(extractor='resnet50'),
        dict(extractor=dict(layers=3)),
        dict(num_classes=10),
        dict(runner_type='OddRunner', num_classes=10, strategy=dict(type='DDPStrategy')),
    ],
)
def test_top_level_keys_are_judged_by_the_runner_that_takes_them(top):
    check(**top)


@pytest.mark.parametrize(
    ('top', 'message'),
    [
        (dict(resume='x.pth'), "^resume='x.pth': Runner takes True or False"),
        (dict(log_level=2.5), r'^log_level=2\.5: build_logger takes an integer or text'),
        (dict(runner_type='FlexibleRunner', resume=2.5), r'^resume=2\.5: FlexibleRunner takes text'),
        (dict(strategy=dict(type='DDPStrategy')), 'strategy is set, but Runner does not read it'),
    ],
)
def test_top_level_keys_that_are_wrong_for_this_runner(top, message):
    with pytest.raises(ValueError, match=message):
        check(**top)


def test_options_that_a_users_runner_may_read():
    cfg = Config(dict(runner_type='OddRunner', tempo=1))
    merge_cfg_options(cfg, {'tempo': 3, 'num_classes': 5})
    assert (cfg.tempo, cfg.num_classes) == (3, 5)
    with pytest.raises(ValueError, match="unknown key 'tempi'"):
        merge_cfg_options(cfg, {'tempi': 3})


@pytest.fixture
def frozen(monkeypatch):
    """An installation without source."""

    def nothing(code):
        raise OSError('could not get source code')

    monkeypatch.setattr(inspect, 'getsource', nothing)
    for cached in (accepted_keys.arguments, accepted_keys.keys_read):
        cached.cache_clear()
    yield
    for cached in (accepted_keys.arguments, accepted_keys.keys_read):
        cached.cache_clear()


def test_without_source_what_it_would_tell_is_not_judged(frozen):
    cfg = load_leaf(CONFIG)
    options = {
        'optim_wrapper.paramwise_cfg.flat_decay_mult': 0.0,
        'train_dataloader.num_batch_per_epoch': 10,
        'env_cfg.cudnn_benchmark': True,
        'auto_scale_lr.enable': True,
        'activation_checkpointing': 'backbone',
    }
    merge_cfg_options(cfg, options)
    check_config(cfg, initialises=False)
    assert misspelt_variables(cfg) == []
    check(runner_type='FlexibleRunner', compile=True, train_dataloader=dict(dataset=dict(type='OddData', taken_out=1)))
    merge_cfg_options(cfg, {'model.bakcbone': 1})
    with pytest.raises(ValueError, match="unknown key 'bakcbone' in model: USP takes"):
        check_config(cfg, initialises=False)


def test_the_runners_read_what_they_read():
    keys = {kind: accepted_keys.keys_read(kind, 'cfg') for kind in (Runner, FlexibleRunner)}
    assert 'compile' in keys[Runner] and 'strategy' in keys[FlexibleRunner] - keys[Runner]
