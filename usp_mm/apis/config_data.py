"""Read configs that come with weights from elsewhere as data, and never run them.

MMEngine's `Config.fromfile` executes a config, and its registries import the module of a type with a dot. Neither happens here.
"""

import ast
import pprint
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

#: Models that a folder may hold.
MODEL_TYPES = ('USP', 'USPClassifier', 'LatentDiffusionGenerator', 'USPSegmentor')
#: Where a model's parts, and the steps of a pipeline, may come from.
_MODELS_OF = (
    'usp_mm.', 'mmpretrain.models.heads.', 'mmpretrain.models.necks.', 'mmpretrain.models.losses.',
    'mmpretrain.models.utils.batch_augments',
)  # fmt: skip
#: The last has MMEngine's SyncBatchNorm.
_SEGMENTORS_OF = (*_MODELS_OF, 'mmseg.models.', 'torch.nn.modules.', 'mmengine.utils.dl_utils.parrots_wrapper')
_STEPS_OF = ('usp_mm.', 'mmcv.transforms.', 'mmpretrain.datasets.transforms.')


def parse_config(text: str, where: str | Path) -> dict[str, Any]:
    """Read the values of a dumped config: names, literals and `dict(…)` calls.

    Raises:
        ValueError: The text has anything else, which would have to be executed.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ValueError(f"'{where}' line {error.lineno}: {error.msg}: no config") from error
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
        if not isinstance(node, ast.Assign) or not isinstance(target, ast.Name):
            raise _code(where, node)
        values[target.id] = _value(node.value, where)
    return values


def _value(node: ast.expr, where: str | Path) -> Any:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == 'dict' and not node.args:
        if any(keyword.arg is None for keyword in node.keywords):
            raise _code(where, node)
        return {keyword.arg: _value(keyword.value, where) for keyword in node.keywords}
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        pairs = zip(node.keys, node.values, strict=True)
        return {_value(key, where): _value(value, where) for key, value in pairs if key is not None}
    if isinstance(node, ast.List):
        return [_value(x, where) for x in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(x, where) for x in node.elts)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _code(where, node) from None


def _code(where: str | Path, node: ast.AST) -> ValueError:
    shown = ast.unparse(node).splitlines()[0][:60]
    return ValueError(
        f"'{where}' line {getattr(node, 'lineno', 1)}: '{shown}' is code, and a config that comes with weights holds values "
        'alone: give a config of your own with config=FILE'
    )


def dump_config(values: Mapping[str, Any]) -> str:
    """Write a config whose values are literals as text that `parse_config` can read.

    Raises:
        ValueError: A value is not a literal; the message names its key.
    """
    text = ''
    for key, value in values.items():
        line = f'{key} = {pprint.pformat(value, width=120, sort_dicts=False, compact=True)}\n'
        try:
            same = parse_config(line, key)[key] == value
        except ValueError:
            same = False
        if not same:
            raise ValueError(f"config key '{key}' holds more than values, which a model folder can't have: {value!r:.80}")
        text += line
    return text


def check_types(model: Mapping[str, Any], where: str | Path) -> None:
    """Refuse a model whose type is not allowed in a model folder.

    Raises:
        ValueError: The model is of another kind, or a part of it belongs to another library.
        ImportError: It is a segmentor, and mmsegmentation is not installed.
    """
    from mmengine.registry import MODELS as ROOT
    from mmpretrain.registry import BATCH_AUGMENTS, MODELS

    import usp_mm.models  # noqa: F401  (registers what is looked up)

    if model.get('type') not in MODEL_TYPES:
        raise ValueError(f"'{where}' is of model.type '{model.get('type')}': expected one of {', '.join(MODEL_TYPES)}")
    if model['type'] == 'USPSegmentor':
        of_mmseg = _of_mmseg().MODELS  # registers segmentors in ROOT too, and so comes first
        _check({**ROOT.module_dict, **of_mmseg.module_dict, **MODELS.module_dict}, model, _SEGMENTORS_OF, where)
        return
    MODELS.import_from_location()
    _check({**ROOT.module_dict, **BATCH_AUGMENTS.module_dict, **MODELS.module_dict}, model, _MODELS_OF, where)


def check_steps(pipeline: list, where: str | Path) -> None:
    """Refuse a pipeline with a step that is not allowed in a model folder."""
    from mmcv.transforms import TRANSFORMS as OF_MMCV
    from mmengine.registry import TRANSFORMS as ROOT
    from mmpretrain.registry import TRANSFORMS

    import usp_mm.datasets  # noqa: F401

    TRANSFORMS.import_from_location()
    _check({**ROOT.module_dict, **OF_MMCV.module_dict, **TRANSFORMS.module_dict}, pipeline, _STEPS_OF, where)


def check_segmentation_data(dataset: Mapping[str, Any], where: str | Path) -> None:
    """Refuse a data set of which a part is neither this package's nor mmseg's; its pipeline is a segmentor's."""
    from mmcv.transforms import TRANSFORMS as OF_MMCV

    mmseg = _of_mmseg()
    known = {**OF_MMCV.module_dict, **mmseg.TRANSFORMS.module_dict, **mmseg.DATASETS.module_dict, **_ours()}
    _check(known, dataset, ('usp_mm.', 'mmcv.transforms.', 'mmseg.datasets.'), where)


def _ours() -> dict[str, Any]:
    import usp_mm.datasets  # noqa: F401
    from usp_mm.registry import DATASETS, TRANSFORMS

    return {**TRANSFORMS.module_dict, **DATASETS.module_dict}


def _of_mmseg() -> Any:
    """The registries of mmseg, with its and this package's segmentors in them."""
    if find_spec('mmseg') is None:
        raise ImportError("a segmentor needs mmsegmentation: pip install '.[seg]' in the checkout of usp_mm")
    import mmseg.datasets
    import mmseg.models
    import mmseg.registry

    import usp_mm.segmentation  # noqa: F401

    return mmseg.registry


def _check(known: Mapping[str, Any], node: Any, allowed: tuple[str, ...], where: str | Path) -> None:
    for kind in _types(node):
        found = known.get(kind) if isinstance(kind, str) else None
        if found is None or not found.__module__.startswith(allowed):
            raise ValueError(f"'{where}' names the type {kind!r}, which no model of this package is made of: it is not built")


def _types(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if 'type' in node:
            yield node['type']
        for key, value in node.items():
            if key != 'init_cfg':  # used in training only: dropped before anything is built
                yield from _types(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _types(value)
