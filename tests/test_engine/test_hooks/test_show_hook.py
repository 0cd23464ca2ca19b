"""ShowHook: its pictures are in the work folder, of the right samples, and do not change the training."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers.small_world import load_leaf, train_quickly
from helpers.trained_files import picture
from PIL import Image

from usp_mm.engine import ShowHook
from usp_mm.engine.hooks import show_hook as module
from usp_mm.engine.starting.loading import load_config

PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
CACHED = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
PROBE = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


def run(world, config, work_dir, epochs=3, **hook):
    cfg = world.shrink(load_leaf(config), img_size=64)
    cfg.train_cfg.max_epochs = epochs
    cfg.default_hooks.pop('restoration', None)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *([dict(type='ShowHook', **hook)] if hook else [])]
    return train_quickly(cfg, work_dir)


def drawn(work_dir):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(work_dir.glob('*/vis_data/vis_image/sight_*.png'))}


def test_pictures_every_interval_and_at_the_end(small_world, tmp_path):
    run(small_world, PRETRAIN, tmp_path / 'run', interval=2, num_images=2)
    shown = drawn(tmp_path / 'run')
    assert list(shown) == ['sight_2.png', 'sight_3.png']
    shapes = {one.shape for one in shown.values()}
    assert len(shapes) == 1 and shapes.pop()[1] == 5 * 132
    cells = [one[-2 * 132 :, :132] for one in shown.values()]
    np.testing.assert_array_equal(*cells)  # the same images
    assert not np.array_equal(shown['sight_2.png'], shown['sight_3.png'])  # other weights


def test_the_training_is_the_same_with_and_without(small_world, tmp_path):
    states = []
    for name, hook in (('with', dict(interval=1, num_images=1)), ('without', {})):
        runner = run(small_world, PRETRAIN, tmp_path / name, **hook)
        states.append(runner.model.state_dict())
        assert runner.model.training
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert not drawn(tmp_path / 'without')


def test_cached_latents_are_decoded(small_world, tmp_path, monkeypatch):
    titles = []
    draw = module.sight_picture
    monkeypatch.setattr(module, 'sight_picture', lambda *args: titles.append(args[3:]) or draw(*args))
    run(small_world, CACHED, tmp_path, epochs=1, interval=5, num_images=2, layer=1, query='patches')
    assert titles == [('patches, block 1', 'PCA, block 1', 'VAE of the image')] and list(drawn(tmp_path)) == ['sight_1.png']


def test_a_classifier_shows_its_validation_set(small_world, tmp_path):
    runner = run(small_world, PROBE, tmp_path, epochs=1, interval=1, num_images=3)
    hook = next(hook for hook in runner.hooks if isinstance(hook, ShowHook))
    assert hook._dataset is runner.val_dataloader.dataset
    assert drawn(tmp_path)['sight_1.png'].shape[0] > 3 * 132


def test_own_images(small_world, tmp_path):
    file = picture(tmp_path / 'own.png', size=(128, 64))
    run(small_world, PRETRAIN, tmp_path / 'run', epochs=1, interval=1, images=str(file))
    cell = drawn(tmp_path / 'run')['sight_1.png'][-130:-2:2, 2:130:2]
    np.testing.assert_array_equal(cell, np.asarray(Image.open(file))[:, 32:96])


def test_what_cannot_be_drawn_is_refused(small_world, tmp_path):
    for wrong in (dict(interval=0), dict(num_images=0), dict(query='all')):
        with pytest.raises(ValueError, match=f'{next(iter(wrong))}='):
            ShowHook(**wrong)
    with pytest.raises(ValueError, match='draws an encoder behind a frozen VAE, this model is a Identity: remove the hook'):
        ShowHook().before_train(SimpleNamespace(model=torch.nn.Identity()))
    with pytest.raises(ValueError, match='layer 3 is not there: the model has blocks 1 to 2'):
        run(small_world, PRETRAIN, tmp_path / 'a', interval=1, layer=3)
    with pytest.raises(FileNotFoundError, match='no image or folder at'):
        run(small_world, PRETRAIN, tmp_path / 'b', interval=1, images=[str(tmp_path / 'none.png')])
    cfg = small_world.shrink(load_leaf(CACHED), img_size=64)
    cfg.model.data_preprocessor.load_vae = False
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='ShowHook')]
    with pytest.raises(ValueError, match='ShowHook needs the VAE'):
        train_quickly(cfg, tmp_path / 'c')


def test_the_options_of_the_page_are_accepted_and_misspelt_ones_are_not():
    options = {
        'default_hooks.show.type': 'ShowHook',
        'default_hooks.show.interval': 10,
        'default_hooks.show.images': 'data/val',
    }
    cfg = load_config(PRETRAIN, options, initialises=False, evaluates=False)
    assert cfg.default_hooks.show == dict(type='ShowHook', interval=10, images='data/val')
    with pytest.raises(ValueError, match=r"default_hooks.show: ShowHook.*did you mean 'layer'"):
        load_config(PRETRAIN, {**options, 'default_hooks.show.layers': 2}, initialises=False, evaluates=False)
