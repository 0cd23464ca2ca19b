"""What GeneratorCheckHook refuses before the first step."""

from types import SimpleNamespace

import pytest
from mmpretrain.registry import MODELS

from usp_mm.engine import GeneratorCheckHook, GeneratorEMAHook


@pytest.fixture
def runner(tiny_vae_folder):
    """A runner that passes; tests spoil a part of it."""
    model = MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            denoiser=dict(type='SiT', arch=dict(embed_dims=32, depth=1, num_heads=2), img_size=64, num_classes=10),
            objective=dict(type='FlowObjective'),
            sampler=dict(type='SDESampler'),
            data_preprocessor=dict(vae=dict(name='tiny', path=str(tiny_vae_folder))),
        )
    )
    metas = (dict(classes=tuple('abc')), dict(num_classes=10))
    train, val = (SimpleNamespace(dataset=SimpleNamespace(metainfo=meta)) for meta in metas)
    evaluator = SimpleNamespace(metrics=[SimpleNamespace(sample_model=None)])
    pictures = SimpleNamespace(vis_kwargs_list=[dict(type='Arguments', forward_kwargs=dict(labels=[0, 9]))])
    good = SimpleNamespace(
        model=model,
        hooks=[GeneratorEMAHook(), pictures],
        train_loop=SimpleNamespace(dataloader=train),
        val_loop=SimpleNamespace(dataloaders=[val], evaluators=[evaluator]),
        test_loop=SimpleNamespace(dataloaders=[val]),
    )
    GeneratorCheckHook().before_train(good)
    return good


def assert_refuses(runner, match):
    with pytest.raises(ValueError, match=match):
        GeneratorCheckHook().before_train(runner)


def test_more_classes_than_the_generator_has(runner):
    runner.val_loop.dataloaders[0].dataset.metainfo = dict(classes=tuple('abcdefghijk'))
    assert_refuses(runner, r'SimpleNamespace has 11 classes, the generator 10: make model\.denoiser\.num_classes, the requests')
    runner.val_loop.dataloaders[0].dataset.metainfo = {}
    runner.hooks[1].vis_kwargs_list[0]['forward_kwargs']['labels'] = [10]
    keys = r'val_dataloader\.dataset\.num_classes.*default_hooks\.visualization\.vis_kwargs_list\.forward_kwargs\.labels'
    assert_refuses(runner, f'the visualization hook has 11 classes, the generator 10.*{keys}')
    runner.hooks[1].vis_kwargs_list[0]['forward_kwargs']['labels'] = [0]  # fewer is a request for fewer
    GeneratorCheckHook().before_train(runner)
    runner.val_loop.dataloaders[0].dataset.metainfo = dict(num_classes=1000)
    assert_refuses(runner, 'SimpleNamespace has 1000 classes, the generator 10')
    with pytest.raises(ValueError, match='has 1000 classes'):
        GeneratorCheckHook().before_test(runner)


def test_an_average_that_nothing_updates(runner):
    del runner.hooks[0]
    assert_refuses(runner, 'model.ema is set, but nothing updates the average')


def test_metrics_on_weights_that_there_are_not(runner):
    runner.model.denoiser_ema, runner.model.sample_model = None, 'model'
    GeneratorCheckHook().before_train(runner)
    runner.val_loop.evaluators[0].metrics[0].sample_model = 'ema'
    assert_refuses(runner, "sample_model='ema', but the generator was built with ema=None")


def test_validation_without_the_vae(runner):
    runner.model.data_preprocessor.codec = SimpleNamespace(network=None)
    assert_refuses(runner, 'validation decodes samples, but the VAE is not loaded')
    runner.val_loop = None
    assert_refuses(runner, 'the visualization hook decodes samples, but the VAE is not loaded')
    del runner.hooks[1]
    GeneratorCheckHook().before_train(runner)
