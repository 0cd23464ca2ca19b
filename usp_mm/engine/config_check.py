"""Find misspelt config keys before any long work starts."""

import inspect
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import WEIGHT_INITIALIZERS, DefaultScope
from mmengine.runner import Runner

from usp_mm import registry
from usp_mm.presets import nearest

#: Which registry builds what stands under a key of a config; of several keys on the way, the last counts.
_BUILDERS = {
    'model': registry.MODELS,
    'model.sampler': registry.MODELS,
    'train_cfg': registry.LOOPS,
    'val_cfg': registry.LOOPS,
    'test_cfg': registry.LOOPS,
    'val_evaluator': registry.METRICS,
    'test_evaluator': registry.METRICS,
    'extractor': registry.MODELS,
    'optimizer': registry.OPTIMIZERS,
    'dataset': registry.DATASETS,
    'sampler': registry.DATA_SAMPLERS,
    'pipeline': registry.TRANSFORMS,
    'custom_hooks': registry.HOOKS,
    'default_hooks': registry.HOOKS,
    'init_cfg': WEIGHT_INITIALIZERS,
    'augments': None,  # mmpretrain's own registry
    'vis_kwargs_list': None,  # mmagic's, of functions
}

#: Top-level keys that MMEngine reads besides the Runner's own arguments.
_RUNTIME_KEYS = {
    'allow_other_vae',
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
}


#: Dicts that no class takes as arguments, and the keys that MMEngine (mmpretrain, for layer decay) reads in them.
_PLAIN_DICTS = {
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
    'randomness': {'seed', 'diff_rank_seed', 'deterministic'},
    'model.guidance': {'scale', 'channels', 'interval'},
    'model.ema': {'momentum'},
    'model.repa': {'teacher', 'depth', 'weight', 'projector', 'hidden_dims', 'resize', 'spatial_norm'},
    'optim_wrapper.paramwise_cfg': {
        'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'flat_decay_mult', 'dwconv_decay_mult',
        'dcn_offset_lr_mult', 'bypass_duplicate', 'layer_decay_rate',
    },
}  # fmt: skip


def check_cfg_options(cfg: Config, options: dict[str, Any]) -> None:
    """Refuse `--cfg-options` whose path leads nowhere; MMEngine would create it and go on.

    Raises:
        ValueError: names the first unknown part of the key and the nearest known one.
    """
    known = set(inspect.signature(Runner.__init__).parameters) | _RUNTIME_KEYS
    for option in options or {}:
        parts = option.split('.')
        node: Any = cfg
        for depth, part in enumerate(parts):
            valid = _children(node) | (known if depth == 0 else set())
            last = depth == len(parts) - 1
            if part not in valid and (depth == 0 or not last or isinstance(node, list | tuple)):
                where = '.'.join(parts[:depth]) or 'the config'
                raise ValueError(
                    f"unknown key '{part}' in --cfg-options {option}: {where} has {sorted(valid)}{nearest(part, valid)}"
                )
            child = _descend(node, part)
            if not last and child is not None and not isinstance(child, dict | Config | list | tuple):
                where = '.'.join(parts[: depth + 1])
                raise ValueError(f'--cfg-options {option}: {where} is {child!r}, which has no parts: set {where} as a whole')
            node = child


def _children(node: Any) -> set[str]:
    if isinstance(node, list | tuple):
        return {str(i) for i in range(len(node))}
    return set(node.keys()) if isinstance(node, dict | Config) else set()


def _descend(node: Any, part: str) -> Any:
    if isinstance(node, list | tuple):
        return node[int(part)]
    return node.get(part) if isinstance(node, dict | Config) else None


def check_config(cfg: Config, initialises: bool = True) -> None:
    """Compare every `dict(type=…)` of a config with the signature of the class it names.

    Args:
        initialises: whether `init_cfg` has to name its checkpoint.

    Raises:
        ValueError: a type or an argument that is not known, with its place and the nearest name; an unset checkpoint;
            training that ends before a scheduler begins.
        FileNotFoundError: a checkpoint that is not there.
    """
    _check_schedule(cfg)
    _check_plain_dicts(cfg)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope', 'mmpretrain')):
        for path, node in _typed_dicts(cfg._cfg_dict, ''):
            if initialises and node['type'] == 'USPPretrained':
                _check_checkpoint(path, node)
            builder = _builder(path, node)
            if builder is not None and isinstance(node['type'], str):
                _check_arguments(path, node, builder)


def _builder(path: str, node: dict) -> Any:
    """The registry that builds what stands at `path`, or None."""
    if path in _BUILDERS and 'metrics' not in node:
        return _BUILDERS[path]
    if path in ('val_evaluator', 'test_evaluator'):
        return registry.EVALUATOR
    return next((_BUILDERS[part] for part in reversed(path.split('.')) if part in _BUILDERS), None)


def _check_plain_dicts(cfg: Config) -> None:
    for path, valid in _PLAIN_DICTS.items():
        node: Any = cfg
        for part in path.split('.'):
            node = _descend(node, part)
        for key in node or ():
            if key not in valid:
                raise ValueError(f"unknown key '{key}' in {path}: expected {sorted(valid)}{nearest(key, valid)}")


def _check_schedule(cfg: Config) -> None:
    max_epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    for i, scheduler in enumerate(cfg.get('param_scheduler') or []):
        begin = scheduler.get('begin', 0)
        if max_epochs is not None and scheduler.get('by_epoch', True) and begin >= max_epochs:
            raise ValueError(
                f'train_cfg.max_epochs={max_epochs} ends before param_scheduler.{i} begins, at {begin}: '
                f'shorten the warm-up too, --cfg-options param_scheduler.0.end=E param_scheduler.{i}.begin=E'
            )


def _typed_dicts(node: Any, path: str):
    if isinstance(node, dict | ConfigDict):
        if 'type' in node and path:
            yield path, node
        for key, value in node.items():
            yield from _typed_dicts(value, f'{path}.{key}' if path else key)
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _typed_dicts(value, f'{path}.{i}')


def _check_arguments(path: str, node: dict, builder: Any) -> None:
    with builder.switch_scope_and_registry(None) as scoped:
        target = scoped.get(node['type'])
        known = {*scoped.module_dict, *builder.module_dict}
    if target is None:
        raise ValueError(f"unknown type '{node['type']}' in {path}{nearest(node['type'], known)}")
    if not inspect.isclass(target):
        return
    valid: set[str] = set()
    for cls in target.__mro__:
        if '__init__' not in vars(cls) or cls is object:
            continue
        parameters = inspect.signature(cls.__init__).parameters.values()
        valid |= {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)} - {'self'}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    else:
        return  # everything is accepted down to `object`
    for key in node:
        if key not in valid | {'type', '_scope_'}:
            raise ValueError(f"unknown key '{key}' in {path}: {target.__name__} takes {sorted(valid)}{nearest(key, valid)}")


def _check_checkpoint(path: str, node: dict) -> None:
    checkpoint = node.get('checkpoint')
    if not checkpoint:
        raise ValueError(f'{path}.checkpoint is unset: give it in the config or with --cfg-options {path}.checkpoint=FILE')
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f"{path}.checkpoint: no file at '{checkpoint}'")
