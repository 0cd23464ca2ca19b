"""mmseg's inferencer takes our configs and checkpoints as they are, and tools/infer.py writes what it finds.

test_inference.py has mmpretrain's inferencers.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_segmentation import shrink_segmentation
from helpers.small_world import ROOT, run_tool, train_quickly
from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from mmseg.visualization import SegLocalVisualizer
from PIL import Image
from safetensors.torch import save_file

import usp_mm
from usp_mm.apis.segmentation import _palette, segment_images, segmentor

UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


@pytest.fixture(scope='module')
def trained(small_world, tmp_path_factory):
    """Config file, checkpoint and two images of a segmentor."""
    folder = tmp_path_factory.mktemp('segmentor')
    cfg = shrink_segmentation(small_world, Config.fromfile(ROOT / UPERNET))
    train_quickly(cfg, folder)
    cfg.dump(folder / 'config.py')
    scenes = sorted((small_world.digits.parents[1] / 'ade20k' / 'images' / 'validation').iterdir())[:2]
    return folder / 'config.py', folder / 'iter_1.pth', scenes


@pytest.mark.slow
def test_mmseg_and_the_tool_agree(trained, tmp_path):
    config, checkpoint, scenes = trained
    cfg = Config.fromfile(config)
    cfg.model.backbone.init_cfg = None
    inferencer = MMSegInferencer(cfg, weights=str(checkpoint), device='cpu')
    expected = inferencer([*map(str, scenes)], out_dir=str(tmp_path / 'mmseg'))['predictions']
    assert expected[0].shape == (128, 128) and expected[0].max() < 11
    assert Image.open(tmp_path / 'mmseg' / 'vis' / scenes[0].name).size == (128, 128)

    out = tmp_path / 'ours'
    done = run_tool('tools/infer.py', 'segment', config, checkpoint, scenes[0].parent, '--out', out, '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    found = json.loads((out / 'segments.json').read_text())['segments']
    assert {p.name for p in out.iterdir()} == {'labels', 'overlays', 'segments.json'}
    for one, scene, labels in zip(found, scenes, expected, strict=False):
        assert one['path'] == str(scene)
        pixels = np.asarray(Image.open(one['labels']))
        assert pixels.dtype == np.uint8 and np.array_equal(pixels, labels)
        assert sum(entry['share'] for entry in one['classes']) == pytest.approx(1)
        best = one['classes'][0]
        assert best['share'] == (labels == best['label']).mean() and best['class'] in done.stdout
        overlay, image = (np.asarray(Image.open(path).convert('RGB'), dtype=float) for path in (one['overlays'], scene))
        assert overlay.shape == image.shape and not np.array_equal(overlay, image)


def test_weights_alone_are_named_by_the_data_set(trained, tmp_path):
    """Without MMEngine's notes of the training data, the test data set's classes and colours."""

    config, checkpoint, _ = trained
    save_file(torch.load(checkpoint, weights_only=True)['state_dict'], tmp_path / 'weights.safetensors')
    alone, whole = (segmentor(config, path, 'cpu') for path in (tmp_path / 'weights.safetensors', checkpoint))
    assert alone.model.dataset_meta == whole.model.dataset_meta
    assert list(alone.model.dataset_meta['classes'])[:2] == ['0', '1']
    assert len(alone.model.dataset_meta['palette']) == 11


def test_a_turned_picture_is_labelled_upright(trained, tmp_path):
    config, checkpoint, scenes = trained
    infer = segmentor(config, checkpoint, 'cpu')
    upright = Image.open(scenes[0]).crop((0, 0, 64, 128))
    upright.save(tmp_path / 'upright.png')
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / 'turned.png', exif=exif)
    expected, found = (infer(str(tmp_path / f'{name}.png'))['predictions'] for name in ('upright', 'turned'))
    assert expected.shape == (128, 64) and np.array_equal(found, expected)


@pytest.fixture(scope='module')
def folder(trained, tmp_path_factory):
    """The segmentor's model folder."""
    out = tmp_path_factory.mktemp('model') / 'my-segmentor'
    usp_mm.from_pretrained(trained[1], device='cpu', load_vae=False).save_pretrained(out, license='mit')
    return out


def test_a_segmentor_has_a_model_folder_with_the_same_labels(trained, folder):
    config, checkpoint, scenes = trained
    expected = np.asarray(segmentor(config, checkpoint, 'cpu')(str(scenes[0]), return_vis=False)['predictions'])
    assert {path.name for path in folder.iterdir()} == {
        'config.py', 'model.safetensors', 'run_info.json', 'README.md', 'vae'
    }  # fmt: skip
    found = usp_mm.from_pretrained(folder, device='cpu')
    pixels = np.asarray(Image.open(scenes[0]).convert('RGB'))
    for picture in (scenes[0], str(scenes[0]), Image.open(scenes[0]), pixels):
        labels = found.segment(picture)
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)
    assert len(found.classes) == 11 == len(found.palette) and found.source.facts['iter'] == 1
    overlay = found.overlay(pixels, labels)
    assert overlay.size == (128, 128) and not np.array_equal(np.asarray(overlay), pixels)
    card = (folder / 'README.md').read_text()
    assert "segmentor.segment('cat.jpg')" in card and '11 classes' in card and 'pipeline_tag: image-segmentation' in card
    text = (folder / 'config.py').read_text()
    assert 'load_weights' not in text and "'vae': {'name': 'tiny', 'path': '{{ fileDirname }}/vae'}" in text


def test_the_folder_of_a_segmentor_is_taken_by_the_tool_and_the_web_demo(folder, trained, tool_here, tmp_path):
    from usp_mm.app.models import load_models

    code, told = tool_here('tools/infer.py', 'segment', folder, trained[2][0], '--out', tmp_path, '--device', 'cpu')
    assert code == 0, told
    labels = np.asarray(Image.open(json.loads((tmp_path / 'segments.json').read_text())['segments'][0]['labels']))
    (found,) = load_models([str(folder)], 'cpu').segmentors.values()
    assert np.array_equal(found.segment(trained[2][0]), labels)


def test_nothing_in_the_folder_of_a_segmentor_is_imported_for_its_sake(folder, tmp_path):
    """Types of other libraries, in the model and in the pipeline, are named and not built."""
    for old, new in (
        ("'type': 'Feature2Pyramid'", "'type': 'os.system'"),
        ("'type': 'PackSegInputs'", "'type': 'code.interact'"),
    ):
        text = (folder / 'config.py').read_text()
        assert old in text
        other = tmp_path / new.strip("'").rpartition('.')[2]
        shutil.copytree(folder, other)
        (other / 'config.py').write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=f'names the type {new[8:]}, which no model of this package is made of'):
            usp_mm.from_pretrained(other, device='cpu')


def test_without_mmseg_a_segmentor_is_refused_with_what_to_install(folder, monkeypatch):
    monkeypatch.setattr('usp_mm.apis.config_data.find_spec', lambda name: None)
    with pytest.raises(ImportError, match=r"a segmentor needs mmsegmentation: pip install '\.\[seg\]' in the checkout"):
        usp_mm.from_pretrained(folder)


def test_colours_of_other_classes():
    """A config that overrides the data set's classes; mmseg's visualizer refuses a palette of another length."""
    known = dict(classes=('a', 'b'), palette=[[1, 2, 3], [4, 5, 6]])
    assert _palette(known, 2) == known['palette']
    others = _palette(known, 30)
    assert others == _palette({}, 30) and len({tuple(colour) for colour in others}) == 30
    visualizer = SegLocalVisualizer(name='colours')
    visualizer.set_dataset_meta([str(k) for k in range(30)], others)
    assert visualizer.dataset_meta['palette'] == others


def test_wrong_input_is_named(trained, tmp_path):
    config, checkpoint, _ = trained
    with pytest.raises(FileNotFoundError, match='nowhere is not a file'):
        segmentor(config, 'nowhere')
    with pytest.raises(ValueError, match=r"config of a segmentor .*got 'USPClassifier'"):
        segmentor('configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py', checkpoint)
    with pytest.raises(ValueError, match=r'iter_1\.pth. does not fit the config: .*missing'):
        segmentor(config, checkpoint, 'cpu', {'model.backbone.arch.depth': 5})
    with pytest.raises(ValueError, match=r"'a/x\.png' and 'b/x\.jpg' would write the same files"):
        segment_images(segmentor(config, checkpoint, 'cpu'), [Path('a/x.png'), Path('b/x.jpg')], tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_config_and_checkpoint_are_read_once(trained, counts):
    config, checkpoint, _ = trained
    infer = segmentor(config, checkpoint, 'cpu')
    assert counts == {'checks': 1, 'iter_1.pth': 1} and len(infer.model.dataset_meta['classes']) == 11


def test_the_web_demo_takes_the_work_folder_of_a_segmentor(trained, tmp_path):
    """It shows what `segment_images` writes, enlarged."""
    from usp_mm.app.build import build_app
    from usp_mm.app.models import load_models
    from usp_mm.app.recognise import segment_picture

    config, checkpoint, scenes = trained
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'upernet.py').symlink_to(config)
    (run / checkpoint.name).symlink_to(checkpoint)
    (run / 'last_checkpoint').write_text(f'/moved/{checkpoint.name}')
    models = load_models([str(run)], 'cpu')
    assert [list(group) for group in models] == [[], [], [], [], ['run']]
    picture, shares = segment_picture(models.segmentors['run'], str(scenes[0]))
    (expected,) = segment_images(models.segmentors['run'].inferencer, scenes[:1], tmp_path / 'out')
    assert shares == {one['class']: one['share'] for one in expected['classes']}
    with Image.open(expected['overlays']) as overlay:
        assert np.array_equal(picture, overlay.convert('RGB').resize((256, 256), Image.Resampling.BICUBIC))
    assert [one.label for one in build_app(models).blocks.values() if type(one).__name__ == 'Tab'] == ['Segment']
