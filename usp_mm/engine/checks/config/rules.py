"""Rules that say what takes each part of a config: a class in a registry, a function, or code that reads single keys.

No list of keys is kept here: the keys are those of signatures, or those that the code reads. A class of this package that
passes an argument on with `**` names the receiver in its attribute `ARGUMENTS_OF`: argument -> callable.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine import registry as _registry
from mmengine.dist import init_dist
from mmengine.evaluator import BaseMetric
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper, build_optim_wrapper
from mmengine.registry import Registry
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.utils import import_modules_from_strings
from mmengine.utils.dl_utils import set_multi_processing
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.utils.data import DataLoader

from usp_mm.vaes.record import ALLOW

from ...optim.sharding import NAME, sharded_class
from .accepted_keys import keys_read


@dataclass(frozen=True)
class Free:
    """Accepts anything: names that users choose, or arguments of other libraries."""


@dataclass(frozen=True)
class Guessed:
    """An argument whose use is unknown to these rules.

    A dict in it that has a type is compared with the class of that name, from any registry.

    Attributes:
        registry: Registry in which a type is looked up first.
        strict: Whether a type that no registry has is an error, and the names in `ARGUMENTS` have their usual meaning. False
            for arguments of other libraries' classes, which may give these names another meaning.
        also: Keys that are removed before the class is called.
    """

    registry: Registry
    strict: bool = True
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """`dict(type=…)`, or a list of them, built from a registry.

    Attributes:
        default: Type to use if none is named; None if a type is required.
        also: Keys that are removed before the class is called.
    """

    registry: Registry
    default: str | None = None
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Called:
    """Arguments of a callable; the keys in `also` are removed before the call, and with `open` any other key is accepted."""

    target: Callable[..., Any]
    also: Mapping[str, Any] = field(default_factory=dict)
    open: bool = False


@dataclass(frozen=True)
class Reads:
    """A dict `name` whose keys are those that the source of `code` reads; `parts` has the rules of their values."""

    code: Callable[..., Any]
    name: str
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Named:
    """A dict with any keys, whose values all follow one rule; keys in `also` have rules of their own."""

    rule: Any
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Choice:
    """A rule that depends on the content of the dict."""

    choose: Callable[[Mapping[str, Any]], Any]


FREE = Free()


def _clip(node: Mapping[str, Any]) -> Called:
    kinds: dict[str, Callable[..., Any]] = {'norm': clip_grad_norm_, 'value': clip_grad_value_}
    return Called(kinds.get(node.get('type', 'norm'), clip_grad_norm_), {'type': FREE})


def _constructor(node: Mapping[str, Any]) -> Any:
    name = node.get('constructor', 'DefaultOptimWrapperConstructor')
    if isinstance(name, str):
        with _registry.OPTIM_WRAPPER_CONSTRUCTORS.switch_scope_and_registry(None) as constructors:
            return constructors.get(name)
    return name


def _wrapper(node: Mapping[str, Any]) -> Any:
    constructor = _constructor(node)
    if not (inspect.isclass(constructor) and issubclass(constructor, DefaultOptimWrapperConstructor)):
        return Guessed(_registry.OPTIM_WRAPPERS)  # several wrappers, or a kind that reads the dict in its own way
    read = keys_read(build_optim_wrapper, 'optim_wrapper_cfg')
    if read is None:
        return FREE
    also = dict.fromkeys(read, FREE)
    paramwise = Reads(constructor, 'paramwise_cfg', {'custom_keys': FREE})
    return Built(_registry.OPTIM_WRAPPERS, 'OptimWrapper', {**also, 'paramwise_cfg': paramwise})


def _train_loop(node: Mapping[str, Any]) -> Any:
    if 'type' in node:
        return Built(_registry.LOOPS)
    return Called(EpochBasedTrainLoop if node.get('by_epoch') else IterBasedTrainLoop, {'by_epoch': FREE})


def _evaluator(node: Mapping[str, Any]) -> Any:
    whole = 'metrics' in node or str(node.get('type')) in _registry.EVALUATOR
    return Built(_registry.EVALUATOR, 'Evaluator') if whole else Built(_registry.METRICS)


def _schedulers(node: Mapping[str, Any]) -> Any:
    one = Built(_registry.PARAM_SCHEDULERS, also={'convert_to_iter_based': FREE})
    several = bool(node) and all(isinstance(value, dict | list) for value in node.values())
    return Named(one) if several and 'type' not in node else one  # one rule for each of several optimizers


def _loader(node: Mapping[str, Any]) -> Called:
    read = keys_read(Runner.build_dataloader, 'dataloader_cfg')
    built = {
        'dataset': Built(_registry.DATASETS),
        'sampler': Built(_registry.DATA_SAMPLERS),
        'batch_sampler': Built(_registry.DATA_SAMPLERS),
        'collate_fn': Built(_registry.FUNCTIONS),
        'worker_init_fn': Built(_registry.FUNCTIONS),
    }
    taken_out = dict.fromkeys((read or frozenset()) - {'batch_size', 'num_workers'}, FREE)
    return Called(DataLoader, {**taken_out, **built}, open=read is None)


def _optimizer(node: Mapping[str, Any]) -> Any:
    if node.get('type') != NAME or 'optimizer_type' not in node:
        return Built(_registry.OPTIMIZERS)
    return Called(sharded_class(node['optimizer_type']), dict.fromkeys(('optimizer_type', 'parameters_as_bucket_view'), FREE))


OPTIM_WRAPPER = Choice(_wrapper)
HOOK = Built(_registry.HOOKS, also={'priority': FREE})
LOADER = Choice(_loader)

#: Top-level key -> who takes it.
TOP = {
    'model': Built(_registry.MODELS),
    'data_preprocessor': Guessed(_registry.MODELS),
    'train_dataloader': LOADER,
    'val_dataloader': LOADER,
    'test_dataloader': LOADER,
    'train_cfg': Choice(_train_loop),
    'val_cfg': Built(_registry.LOOPS, 'ValLoop'),
    'test_cfg': Built(_registry.LOOPS, 'TestLoop'),
    'val_evaluator': Choice(_evaluator),
    'test_evaluator': Choice(_evaluator),
    'optim_wrapper': OPTIM_WRAPPER,
    'param_scheduler': Choice(_schedulers),
    'auto_scale_lr': Reads(Runner.scale_lr, 'auto_scale_lr'),
    'default_hooks': Named(HOOK),
    'custom_hooks': HOOK,
    'env_cfg': Reads(Runner.setup_env, 'env_cfg', {'mp_cfg': Called(set_multi_processing), 'dist_cfg': Called(init_dist)}),
    'randomness': Called(Runner.set_randomness),
    'log_processor': Built(_registry.LOG_PROCESSORS, 'LogProcessor'),
    'visualizer': Built(_registry.VISUALIZERS, 'Visualizer'),
    'model_wrapper_cfg': Built(_registry.MODEL_WRAPPERS, 'MMDistributedDataParallel'),
    'strategy': Built(_registry.STRATEGIES),
    'compile': Called(torch.compile),
    'custom_imports': Called(import_modules_from_strings),
    'tta_model': Built(_registry.MODELS),
    'tta_pipeline': Built(_registry.TRANSFORMS),
    ALLOW: FREE,
    'model_folder': FREE,  # read by `usp train`
}

#: Argument -> who takes it, whichever class of `PROJECTS` it is of.
ARGUMENTS = {
    'init_cfg': Built(_registry.WEIGHT_INITIALIZERS),
    'dataset': Built(_registry.DATASETS),
    'datasets': Built(_registry.DATASETS),
    'pipeline': Built(_registry.TRANSFORMS),
    'optimizer': Choice(_optimizer),
    'clip_grad': Choice(_clip),
    'metrics': Built(_registry.METRICS),
    'vis_backends': Built(_registry.VISBACKENDS),
    'norm_cfg': Built(_registry.MODELS, also={'requires_grad': FREE}),
    'policies': Built(_registry.TRANSFORMS, also={'magnitude_key': FREE}),
    'metainfo': FREE,
    'on_trace_ready': FREE,  # MMEngine's ProfilerHook looks up these types itself
    'targets': FREE,  # mmpretrain's LoRA: keys are names of layers
    'vis_kwargs_list': FREE,  # mmagic: keys are names of functions
    'nms': FREE,  # mmdet: the type is a function of mmcv.ops
}

#: Those whose classes are judged to the last nested dict: all of their configs pass.
PROJECTS = ('torch', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmagic', 'usp_mm')
#: Of these, those whose classes take more out of their arguments' dicts than they build.
OWN_WAYS = ('mmagic',)
#: Class -> its argument whose types are those of albumentations.
ALBUMENTATIONS = {'Albu': 'transforms', 'Albumentations': 'transforms'}


#: Loops, loaders, metrics, optimizer wrappers -> those of their arguments that count something, so that less than 1 is wrong.
COUNTS = {
    BaseLoop: ('max_epochs', 'max_iters', 'val_interval'),
    DataLoader: ('batch_size',),
    BaseMetric: ('batch_size',),
    OptimWrapper: ('accumulative_counts',),
}


def project_of(target: Any) -> str:
    """The package to which a class or function belongs."""
    return str(getattr(getattr(target, 'func', target), '__module__', '')).split('.')[0]


def runner_keys(runner: type) -> frozenset[str] | None:
    """Top-level keys that a kind of runner reads; None if its source is not readable."""
    read = keys_read(runner, 'cfg')
    return None if read is None else read | {'runner_type', 'custom_imports', 'default_scope', 'work_dir'}
