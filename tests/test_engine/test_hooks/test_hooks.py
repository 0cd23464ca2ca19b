"""Checks that stand between a wrong file and a long run."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.logging import MMLogger
from mmengine.runner import BaseLoop, Runner
from mmpretrain.registry import MODELS
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset

from usp_mm.datasets import LatentCacheDataset
from usp_mm.engine import CheckpointMatchHook, LatentCacheCheckHook, RestorationHook
from usp_mm.engine.hooks import restoration_hook


class Loop(BaseLoop):
    """A training loop that is never run."""

    def __init__(self):
        pass

    def run(self):
        raise NotImplementedError


def runner_of(model, training=False, resume=False, **kwargs):
    loop = Loop() if training else None
    return SimpleNamespace(model=model, _train_loop=loop, _resume=resume, logger=MMLogger.get_current_instance(), **kwargs)


def model_of(depth=2, **preprocessor):
    arch = dict(embed_dims=32, depth=depth, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)
    backbone = dict(type='USPViT', arch=arch, img_size=64)
    return MODELS.build(dict(type='USP', backbone=backbone, data_preprocessor=preprocessor))


def test_a_checkpoint_of_another_model():
    hook, model = CheckpointMatchHook(), model_of(load_vae=False)
    hook.after_load_checkpoint(runner_of(model), dict(state_dict=model.state_dict()))
    deeper = dict(state_dict=model_of(depth=3, load_vae=False).state_dict())
    for kwargs in (dict(), dict(training=True, resume=True)):
        with pytest.raises(ValueError, match=r'does not fit the config: 12 unexpected \(backbone\.blocks\.2\.'):
            hook.after_load_checkpoint(runner_of(model, **kwargs), deeper)
    hook.after_load_checkpoint(runner_of(model, training=True), deeper)  # load_from: in part
    extra = dict(state_dict={**model.state_dict(), 'teacher.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match=r'1 unexpected \(teacher\.weight\): give the config it was trained with$'):
        hook.after_load_checkpoint(runner_of(model), extra)
    with pytest.raises(ValueError, match=r'missing \(backbone\.cls_token.*1 unexpected \(fc\.weight\)'):
        hook.after_load_checkpoint(runner_of(model, training=True), dict(state_dict={'fc.weight': torch.zeros(1)}))
    wrong = dict(model.state_dict(), **{'backbone.norm.bias': torch.zeros(3)})
    with pytest.raises(ValueError, match=r'1 of another shape \(backbone\.norm\.bias \[3\] instead of \[32\]'):
        hook.after_load_checkpoint(runner_of(model), dict(state_dict=wrong))


def test_a_cache_of_another_vae_size_or_normalisation(small_world):
    hook, dataset = LatentCacheCheckHook(), LatentCacheDataset(small_world.cache('tiny', 64))
    tiny = dict(vae=dict(name='tiny', path=str(small_world.tiny_vae_folder)))
    loader = SimpleNamespace(dataset=SimpleNamespace(dataset=dataset))  # behind a wrapper

    def check(**preprocessor):
        for stage in ('train', 'val', 'test'):
            loop = SimpleNamespace(dataloaders=[loader]) if stage == 'val' else SimpleNamespace(dataloader=loader)
            runner = runner_of(model_of(**preprocessor), **{f'{stage}_loop': loop})
            getattr(hook, f'before_{stage}')(runner)

    check(**tiny)
    with pytest.raises(ValueError, match="written with vae='tiny', the model has 'sd-f8d4'"):
        check(load_vae=False)
    with pytest.raises(ValueError, match=r'normalised by 127.5, the data preprocessor has mean=\[10.0, 10.0, 10.0\]'):
        check(**tiny, mean=[10, 10, 10])
    large = LatentCacheDataset(small_world.cache('tiny', 224))
    sliced = Runner.build_dataloader(
        dict(dataset=large, sampler=dict(type='EpochSampler'), batch_size=1, num_batch_per_epoch=1)
    )
    wrapped = [ConcatDataset([dataset, large]), TorchConcatDataset([dataset, RepeatDataset(large, 2)]), Subset(large, [0])]
    for loader.dataset in (large, *wrapped, sliced.dataset):
        with pytest.raises(ValueError, match='written with image_size=224, the model has 64'):
            check(**tiny)


def test_no_pictures_without_a_vae():
    hook = RestorationHook(interval=1)
    hook.before_train(runner_of(model_of(load_vae=False)))
    hook.after_train_epoch(SimpleNamespace())  # would draw
    assert hook.interval == 0


def generator_of(img_size=64, **kwargs):
    denoiser = dict(type='SiT', arch=dict(embed_dims=32, depth=1, num_heads=2), img_size=img_size, num_classes=10)
    parts = dict(objective=dict(type='FlowObjective'), sampler=dict(type='SDESampler'), data_preprocessor=dict(load_vae=False))
    return MODELS.build(dict(type='LatentDiffusionGenerator', denoiser=denoiser, **parts, **kwargs))


def test_a_generators_checkpoint_without_averaged_weights():
    plain = generator_of(ema=None, sample_model='model').state_dict()
    with pytest.raises(ValueError, match=r'it holds no averaged weights: --cfg-options model\.ema=None'):
        CheckpointMatchHook().after_load_checkpoint(runner_of(generator_of()), dict(state_dict=plain))


def test_a_key_too_many_is_not_taken_for_missing_averaged_weights():
    """Whether the averages are there or not."""
    model = generator_of()
    extra = {'teacher.weight': torch.zeros(1)}
    for weights in (model.state_dict(), generator_of(ema=None, sample_model='model').state_dict()):
        with pytest.raises(ValueError, match=r'1 unexpected \(teacher\.weight\).*: give the config it was trained with$'):
            CheckpointMatchHook().after_load_checkpoint(runner_of(model), dict(state_dict={**weights, **extra}))


def test_a_generators_checkpoint_of_another_size():
    small, large = generator_of(), generator_of(img_size=128)
    for kwargs in (dict(), dict(training=True, resume=True)):
        with pytest.raises(ValueError, match=r'denoiser\.pos_embed \[1, 16, 32\] instead of \[1, 64, 32\]'):
            CheckpointMatchHook().after_load_checkpoint(runner_of(large, **kwargs), dict(state_dict=small.state_dict()))


def test_pictures_are_of_evenly_spaced_images(monkeypatch):
    drawn = []
    monkeypatch.setattr(restoration_hook, 'titled_restoration', lambda model, samples, composite: (samples, composite))
    visualizer = SimpleNamespace(add_image=lambda name, picture, step: drawn.append((name, picture, step)))
    runner = runner_of(torch.nn.Identity(), epoch=4, seed=5, visualizer=visualizer)
    runner.train_dataloader = SimpleNamespace(dataset=list('abcdefghij'))
    RestorationHook(num_images=3, composite='visible')._draw(runner)
    assert drawn == [('restoration', (['a', 'd', 'g'], 'visible'), 5)]
