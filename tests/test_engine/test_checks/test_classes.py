"""Classes of data, model and checkpoint are compared before the first step."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from mmengine.evaluator import DumpResults
from mmengine.runner import BaseLoop
from mmpretrain.datasets import CustomDataset
from mmpretrain.evaluation import Accuracy, SingleLabelMetric
from torch import nn
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset

from usp_mm.datasets import ImageFolder, SampleRequests
from usp_mm.engine import ClassCheckHook
from usp_mm.engine.checks.classes import _KINDS


class Named(BaseDataset):
    """Four samples of classes with these names."""

    def __init__(self, classes):
        super().__init__(metainfo={} if classes is None else dict(classes=tuple(classes)), serialize_data=False)

    def load_data_list(self):
        return [{} for _ in range(4)]


class Loop(BaseLoop):
    def __init__(self, *datasets):
        self.dataloaders = [SimpleNamespace(dataset=dataset) for dataset in datasets]
        self.dataloader = self.dataloaders[0]

    def run(self):
        raise NotImplementedError


class Part(nn.Linear):
    def __init__(self, num_classes):
        super().__init__(2, num_classes)
        self.num_classes = num_classes


class Model(nn.Module):
    """A classifier, a segmentor or a generator, as far as classes go."""

    def __init__(self, part, num_classes):
        super().__init__()
        self.backbone = nn.Linear(2, 2)
        inside = {'head': 'fc', 'decode_head': 'conv_seg', 'denoiser': 'y_embedder'}[part]
        self.add_module(part, nn.ModuleDict({inside: Part(num_classes)}))
        getattr(self, part).num_classes = num_classes


class BaseClassifier(Model):
    """By the name of mmpretrain's."""


class BaseSegmentor(Model):
    """By the name of mmseg's."""


class LatentDiffusionGenerator(Model):
    """By the name of ours."""


KINDS = dict(head=BaseClassifier, decode_head=BaseSegmentor, denoiser=LatentDiffusionGenerator)


def runner_of(train=None, val=None, test=None, part='head', number=3, resume=False):
    logger = SimpleNamespace(lines=[])
    logger.info = logger.warning = logger.lines.append
    loops = {
        f'_{name}_loop': None if dataset is None else Loop(dataset)
        for name, dataset in (('train', train), ('val', val), ('test', test))
    }
    return SimpleNamespace(model=KINDS[part](part, number), _resume=resume, logger=logger, **loops)


def checkpoint_of(runner, classes=None, **others):
    meta = {} if classes is None else dict(dataset_meta=dict(classes=tuple(classes)))
    return dict(state_dict={**runner.model.state_dict(), **others}, meta=meta)


@pytest.mark.parametrize('part', ['head', 'decode_head', 'denoiser'])
@pytest.mark.parametrize('wrap', [lambda data: data, lambda data: RepeatDataset(data, 2), lambda data: Subset(data, [0])])
def test_training_and_validation_data(part, wrap):
    ClassCheckHook().before_train(runner_of(wrap(Named('abc')), Named('abc'), part=part))
    with pytest.raises(
        ValueError, match=r"training data .* and validation data .* differ \(3 each\): moved 'a' \(0 → 1\), 'b'"
    ):
        ClassCheckHook().before_train(runner_of(wrap(Named('abc')), Named('bac'), part=part))
    with pytest.raises(ValueError, match="missing 'c'; extra 'd'"):
        ClassCheckHook().before_train(runner_of(wrap(Named('abc')), Named('abd'), part=part))


@pytest.mark.parametrize(
    ('part', 'setting'), [('head', 'model.head'), ('denoiser', 'model.denoiser'), ('decode_head', 'model.dec')]
)
def test_another_number_of_classes_than_the_models(part, setting):
    runner = runner_of(Named('abc'), part=part, number=10)
    with pytest.raises(
        ValueError, match=rf'training data Named has 3 classes, {setting}.* is 10: set {setting}.*=3, or default_h'
    ):
        ClassCheckHook().before_train(runner)
    ClassCheckHook(allow_unseen_classes=True).before_train(runner)
    assert runner.logger.lines == [
        f'training data Named has 3 classes, model.{part}.num_classes is 10: classes 3 to 9 are not in it'
    ]
    for hook in (ClassCheckHook(), ClassCheckHook(allow_unseen_classes=True)):
        with pytest.raises(ValueError, match=r'has 4 classes, .* is 3: set model\.\w+\.num_classes=4$'):
            hook.before_train(runner_of(Named('abcd'), part=part))
        with pytest.raises(ValueError, match='test data Named has 4 classes'):
            hook.before_test(runner_of(test=Named('abcd'), part=part))
    with pytest.raises(ValueError, match='test data Named has 2 classes'):
        ClassCheckHook().before_test(runner_of(test=Named('ab'), part=part))
    with pytest.raises(ValueError, match='validation data Named has 2 classes'):
        ClassCheckHook().before_val(runner_of(val=Named('ab'), part=part))


def test_data_without_names_and_requests_for_fewer_are_taken():
    hook = ClassCheckHook()
    hook.before_train(runner_of(Named(None), Named('abc')))
    hook.before_train(runner_of(Named('abc'), SampleRequests(4, 2, classes=['a', 'b']), part='denoiser'))
    with pytest.raises(ValueError, match="missing 'a'; extra 'x'"):
        hook.before_train(runner_of(Named('abc'), SampleRequests(4, 2, classes=['x', 'b']), part='denoiser'))
    pretraining = runner_of(Named('ab'))
    pretraining.model.head.num_classes = None
    hook.before_train(pretraining)
    hook.after_load_checkpoint(pretraining, checkpoint_of(pretraining, 'xyz'))


def test_a_folder_or_cache_without_classes_is_refused(small_world):
    pipeline = [dict(type='LoadImage'), dict(type='PackInputs')]
    flat = ImageFolder(str(small_world.images / 'train' / '0'), with_label=False, pipeline=pipeline)
    with pytest.raises(ValueError, match=r"training data '.*/train/0' has no classes, and BaseClassifier needs them"):
        ClassCheckHook().before_train(runner_of(RepeatDataset(flat, 2)))


@pytest.mark.parametrize('kind', [ImageFolder, CustomDataset])
@pytest.mark.parametrize('part', ['head', 'denoiser'])
def test_labels_without_names_are_taken_if_the_model_has_them(kind, part, tmp_path):
    (tmp_path / 'train.txt').write_text('a.png 0\nb.png 2\n')
    data = kind(data_root=str(tmp_path), ann_file='train.txt')
    assert data.CLASSES is None
    runner = runner_of(RepeatDataset(data, 2), Named('abc'), data, part=part)
    ClassCheckHook().before_train(runner)
    told = f"data '{tmp_path}' has labels without names of classes: names are not compared"
    assert runner.logger.lines == [f'training {told}', f'test {told}']
    with pytest.raises(ValueError, match=rf'labels from 0 to 2, model\.{part}\.num_classes is 2: labels have to be from 0'):
        ClassCheckHook(allow_unseen_classes=True).before_train(runner_of(data, part=part, number=2))
    (tmp_path / 'train.txt').write_text('a.png 0\nb.png -1\n')
    with pytest.raises(ValueError, match='labels from -1 to 0'):
        ClassCheckHook().before_train(runner_of(kind(data_root=str(tmp_path), ann_file='train.txt'), part=part))


def test_unlabelled_data_are_tested_where_nothing_is_scored(tmp_path):
    (tmp_path / 'test.txt').write_text('a.png\nb.png\n')
    flat = CustomDataset(data_root=str(tmp_path), ann_file='test.txt', with_label=False)

    class Own(Accuracy):
        pass

    def test(*metrics, **others):
        runner = runner_of(test=flat, **others)
        runner._test_loop.evaluator = SimpleNamespace(metrics=metrics)
        ClassCheckHook().before_test(runner)
        return runner.logger.lines

    dump = DumpResults(str(tmp_path / 'predictions.pkl'))
    assert test(dump) == [f"test data '{tmp_path}' has no labels: no metric of mmpretrain is asked to score it"]
    for metric in (Accuracy(), SingleLabelMetric(), Own()):
        with pytest.raises(ValueError, match=rf'has no labels, and metric {type(metric).__name__} needs them: .*DumpResults'):
            test(dump, metric)
    with pytest.raises(ValueError, match=r'test data .* has no classes, and LatentDiffusionGenerator needs them'):
        test(dump, part='denoiser')
    with pytest.raises(ValueError, match=r'validation data .* has no classes, and BaseClassifier needs them'):
        ClassCheckHook().before_val(runner_of(val=flat))


def test_what_a_pretext_task_counts_is_not_the_datas_classes():
    """Relative location has 8 places; labelled folders serve it."""
    runner = runner_of(Named('abc'), number=8)
    runner.model = Model('head', 8)
    ClassCheckHook().before_train(runner)
    ClassCheckHook().after_load_checkpoint(runner, checkpoint_of(runner, 'xyz'))
    assert runner.logger.lines == []


def test_the_models_that_know_their_classes():
    from mmpretrain.models import ImageClassifier
    from mmpretrain.models.selfsup.base import BaseSelfSupervisor
    from mmseg.models import EncoderDecoder

    from usp_mm.models import LatentDiffusionGenerator as Generator

    for part, model in (('head', ImageClassifier), ('decode_head', EncoderDecoder), ('denoiser', Generator)):
        assert _KINDS[part] in {kind.__name__ for kind in model.__mro__}, part
    assert not {kind.__name__ for kind in BaseSelfSupervisor.__mro__} & set(_KINDS.values())


def test_members_of_a_concatenation():
    for wrap in (ConcatDataset, TorchConcatDataset):
        ClassCheckHook().before_train(runner_of(wrap([Named('abc'), Named('abc')])))
    with pytest.raises(ValueError, match=r'data sets in one ConcatDataset, the first and Named, differ .*: moved'):
        ClassCheckHook().before_train(runner_of(TorchConcatDataset([Named('abc'), Named('bac')])))


@pytest.mark.parametrize('part', ['head', 'decode_head', 'denoiser'])
def test_a_checkpoint_of_other_classes(part):
    hook = ClassCheckHook()
    for runner in (
        runner_of(test=Named('abc'), part=part), runner_of(val=Named('abc'), part=part),
        runner_of(Named('abc'), part=part), runner_of(RepeatDataset(Named('abc'), 2), part=part, resume=True),
    ):  # fmt: skip
        hook.after_load_checkpoint(runner, checkpoint_of(runner, 'abc'))
        with pytest.raises(ValueError, match=r"the classes of the checkpoint and \w+ data \w+ differ \(4 and 3\): missing 'd'"):
            hook.after_load_checkpoint(runner, checkpoint_of(runner, 'abcd'))
        assert not runner.logger.lines
        hook.after_load_checkpoint(runner, checkpoint_of(runner))
        assert runner.logger.lines == ['classes are not compared: no names in the checkpoint']
    fewer = runner_of(test=Named('ab'), part=part)
    ClassCheckHook(allow_unseen_classes=True).after_load_checkpoint(fewer, checkpoint_of(fewer, 'abc'))


def test_a_run_starts_from_an_encoder_of_other_classes():
    runner = runner_of(Named('abc'))
    whole = checkpoint_of(runner, 'xyz')
    with pytest.raises(ValueError, match='start from its encoder alone, with init_cfg'):
        ClassCheckHook().after_load_checkpoint(runner, whole)
    encoder = dict(whole, state_dict={name: x for name, x in whole['state_dict'].items() if name.startswith('backbone.')})
    ClassCheckHook().after_load_checkpoint(runner, encoder)
    other_head = checkpoint_of(runner, 'vwxyz', **{'head.fc.weight': torch.zeros(5, 2), 'head.fc.bias': torch.zeros(5)})
    ClassCheckHook().after_load_checkpoint(runner, other_head)  # is left out, as CheckpointMatchHook says


def test_weights_are_loaded_after_a_resumed_training():
    runner = runner_of(Named('abc'), resume=True)
    encoder = checkpoint_of(runner, 'xyz')
    encoder['state_dict'] = {name: x for name, x in encoder['state_dict'].items() if name.startswith('backbone.')}
    with pytest.raises(ValueError, match='use data of the classes that it was trained on'):
        ClassCheckHook().after_load_checkpoint(runner, encoder)
    runner._has_loaded = True  # by the resume itself
    ClassCheckHook().after_load_checkpoint(runner, encoder)
    with pytest.raises(ValueError, match='start from its encoder alone'):
        ClassCheckHook().after_load_checkpoint(runner, checkpoint_of(runner, 'xyz'))


def test_torchs_wrappers_hand_on_the_names():
    runner = runner_of(Subset(Named('abc'), [0]), TorchConcatDataset([Named('abc')]))
    ClassCheckHook().before_run(runner)
    assert [loop.dataloader.dataset.metainfo for loop in (runner._train_loop, runner._val_loop)] == [
        dict(classes=('a', 'b', 'c'))
    ] * 2
