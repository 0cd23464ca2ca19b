"""Check that training, validation and test data, the model and its checkpoint agree on the classes."""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmpretrain.datasets import CustomDataset
from torch import nn
from torch.utils.data import ConcatDataset, Subset

from usp_mm.datasets import LatentCacheDataset, SampleRequests, all_datasets
from usp_mm.datasets.class_names import check_classes, class_names
from usp_mm.registry import HOOKS

from ..runner_parts import built_loops, loaders_of, metrics_of, resuming, unwrapped

#: Part of a model that knows its number of classes -> where its weights for each class begin.
_HEADS = {'denoiser': 'denoiser.y_embedder.', 'head': 'head.', 'decode_head': 'decode_head.conv_seg.'}
#: The same -> the class of models in which it does; a pretext task's `head.num_classes` counts something else.
_KINDS = {'denoiser': 'LatentDiffusionGenerator', 'head': 'BaseClassifier', 'decode_head': 'BaseSegmentor'}
#: Its number of classes, in a config.
_SETTINGS = {name: f'model.{name}.num_classes' for name in _HEADS}
_SAME_NAMES = (
    'give all of them the same classes in the same order, or where only names differ, set `metainfo=dict(classes=[…])` of one'
)


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Refuse data and weights in which label k stands for different classes.

    The hook compares the names and their order between training and validation data, and between the data and the checkpoint
    that is tested or resumed, or from which training starts with its classification weights. It compares the number of classes
    with the model's. Of data without class names, it only checks that the labels fit the model. Pretraining, which has no use
    for classes, is not checked. Requests for samples may name fewer classes.

    Args:
        allow_unseen_classes: Accept data that lacks the last classes of the model, or of the data or checkpoint that it is
            compared with. These classes are then never trained or never tested.

    Raises:
        ValueError: Classes are missing, extra or in another order; their number differs from the model's; a label is beyond the
            model's classes; or the data have no labels for a model that needs them, unless a test of a classifier computes no
            scores.
    """

    def __init__(self, allow_unseen_classes: bool = False) -> None:
        self.allow_unseen_classes = allow_unseen_classes

    def before_run(self, runner: Runner) -> None:
        """Give torch's dataset wrappers the class names of the data set inside them, so that MMEngine saves them."""
        for _, dataset in _loaded(runner):
            names = None if hasattr(dataset, 'metainfo') else class_names(dataset)
            if names and isinstance(dataset, Subset | ConcatDataset):
                setattr(dataset, 'metainfo', dict(classes=names))  # noqa: B010  (these wrappers declare no such attribute)

    def before_train(self, runner: Runner) -> None:
        (_, training), *others = _loaded(runner)
        self._check_data(runner, 'training', training)
        expected = class_names(training)
        for stage, dataset in others:
            found = class_names(dataset)
            if expected and found:
                meeting = f'training data {_name(training)} and {stage} data {_name(dataset)}'
                check_classes(self._expected(expected, dataset, found), found, meeting, _SAME_NAMES)
            self._check_data(runner, stage, dataset)

    def before_val(self, runner: Runner) -> None:
        if not isinstance(runner._train_loop, BaseLoop):
            self.before_test(runner)

    def before_test(self, runner: Runner) -> None:
        for stage, dataset in _loaded(runner):
            self._check_data(runner, stage, dataset)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = unwrapped(runner)
        head = _head(model)
        if head is None:
            return
        starts = isinstance(runner._train_loop, BaseLoop) and not resuming(runner)
        if starts and not _has_weights(model, checkpoint, _HEADS[head]):
            return
        noted = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        for stage, dataset in _loaded(runner):
            found = class_names(dataset)
            if not noted or not found:
                if not _is_request(dataset):
                    runner.logger.info(f'classes are not compared: no names in {"the checkpoint" if found else _name(dataset)}')
                continue
            fix = (
                'start from its encoder alone, with init_cfg, or give data of the same classes'
                if starts
                else 'use data of the classes that it was trained on, in their order; where only names differ, set '
                '`metainfo=dict(classes=[…])` of the data set'
            )
            expected = self._expected(noted, dataset, found)
            check_classes(expected, found, f'the checkpoint and {stage} data {_name(dataset)}', fix)

    def _expected(self, names: Sequence[str], dataset: Any, found: Sequence[str]) -> Sequence[str]:
        """The part of `names` that can be compared with the names found in a data set."""
        return names[: len(found)] if self.allow_unseen_classes or _is_request(dataset) else names

    def _check_data(self, runner: Runner, stage: str, dataset: Any) -> None:
        model = unwrapped(runner)
        head = _head(model)
        if head is None or _is_request(dataset):
            return
        for part in all_datasets(dataset):
            if isinstance(part, CustomDataset | LatentCacheDataset) and part.CLASSES is None:
                _check_unnamed(runner, stage, part, head)
            _check_member(dataset, part)
        found, number = class_names(dataset), getattr(model, head).num_classes
        if not found or len(found) == number:
            return
        message = f'{stage} data {_name(dataset)} has {len(found)} classes, {_SETTINGS[head]} is {number}'
        if len(found) > number or not self.allow_unseen_classes:
            fewer = ', or default_hooks.class_check.allow_unseen_classes=True to go on without the others'
            raise ValueError(f'{message}: set {_SETTINGS[head]}={len(found)}{fewer if len(found) < number else ""}')
        runner.logger.warning(f'{message}: classes {len(found)} to {number - 1} are not in it')


def _check_unnamed(runner: Runner, stage: str, part: Any, head: str) -> None:
    """Check data without class names: labels must be the model's, and only a test may have no labels."""
    model, data = unwrapped(runner), f'{stage} data {_name(part)}'
    label = part.get_data_info(0).get('gt_label') if len(part) else None  # decodes nothing
    if label is None and stage == 'test' and head == 'head':
        if scores := _scores(runner):
            raise ValueError(
                f'{data} has no labels, and metric {scores[0]} needs them: give labelled data, or keep the predictions alone '
                "with test_evaluator=dict(type='DumpResults', out_file_path='predictions.pkl')"
            )
        runner.logger.info(f'{data} has no labels: no metric of mmpretrain is asked to score it')
    elif label is None:
        raise ValueError(
            f'{data} has no classes, and {type(model).__name__} needs them: give a folder with one sub-folder a class, a '
            'latent cache of one, or an ann_file with labels'
        )
    else:
        number = getattr(model, head).num_classes
        labels = part.get_gt_labels() if isinstance(label, int) else None  # with several labels a sample, any number is fine
        if labels is not None and not 0 <= labels.min() <= labels.max() < number:
            raise ValueError(
                f'{data} has labels from {labels.min()} to {labels.max()}, {_SETTINGS[head]} is {number}: labels have to be '
                f'from 0 to {number - 1}, so set {_SETTINGS[head]}, or correct the ann_file'
            )
        runner.logger.info(f'{data} has labels without names of classes: names are not compared')


def _scores(runner: Runner) -> list[str]:
    """The metrics of a test that come from mmpretrain or derive from its metrics; all of them read labels."""
    kinds = [type(metric) for stage, loop in built_loops(runner) if stage == 'test' for metric in metrics_of(loop)]
    return [kind.__name__ for kind in kinds if any(base.__module__.startswith('mmpretrain.') for base in kind.__mro__)]


def _check_member(dataset: Any, part: Any) -> None:
    """Check that all data sets inside one wrapper have the same classes, which torch's wrappers do not do."""
    expected, found = class_names(dataset), (getattr(part, 'metainfo', None) or {}).get('classes')
    if part is not dataset and expected and found:
        meeting = f'data sets in one {type(dataset).__name__}, the first and {_name(part)},'
        check_classes(expected, found, meeting, _SAME_NAMES)


def _loaded(runner: Runner) -> Iterator[tuple[str, Any]]:
    """('training', 'validation' or 'test', data set) of each loop that has been built."""
    for stage, loop in built_loops(runner):
        for loader in loaders_of(loop):
            yield stage, loader.dataset


def _head(model: nn.Module) -> str | None:
    """Name of the part of a model that has the number of classes, or None."""
    kinds = {kind.__name__ for kind in type(model).__mro__}  # by name: mmseg may not be installed
    known = [name for name, kind in _KINDS.items() if kind in kinds]
    return next((name for name in known if isinstance(getattr(getattr(model, name, None), 'num_classes', None), int)), None)


def _has_weights(model: nn.Module, checkpoint: dict, prefix: str) -> bool:
    """Whether a checkpoint has weights for each class that the model would load."""
    weights = checkpoint.get('state_dict', checkpoint)
    ours = {name: value for name, value in model.state_dict().items() if name.startswith(prefix)}
    return any(name in weights and _shape(weights[name]) == _shape(value) for name, value in ours.items())


def _shape(value: Any) -> Any:
    return getattr(value, 'shape', None)  # an extra state may be of any type


def _is_request(dataset: Any) -> bool:
    return any(isinstance(part, SampleRequests) for part in all_datasets(dataset))


def _name(dataset: Any) -> str:
    """Path of a data set, or its type if it has no path."""
    for part in all_datasets(dataset):
        prefix = getattr(part, 'img_prefix', None) or getattr(part, 'data_root', None)
        if isinstance(prefix, str) and prefix:
            return f"'{prefix.rstrip('/')}'"
    return type(dataset).__name__
