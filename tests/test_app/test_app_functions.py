"""The functions behind the buttons of the demo."""

import threading
import time
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
from helpers.trained_files import DIGITS, pixels
from PIL import Image

from usp_mm.app.build import build_app
from usp_mm.app.event_handlers import in_turn, in_use, seed_number
from usp_mm.app.generate import Request, by_classes, class_choices, generate_pictures
from usp_mm.app.models import AppModels, load_models
from usp_mm.app.neighbours import PictureFolder, find_neighbours
from usp_mm.app.pictures import enlarged, read_upload
from usp_mm.app.recognise import classify_picture
from usp_mm.app.restore import restore_picture


def only(models):
    (found,) = models.values()
    return found


def test_models_are_sorted_by_what_they_can_do(models):
    assert [list(group) for group in models] == [
        ['pretraining.pth'], ['classifier.pth'], ['pretraining.pth', 'classifier.pth'], ['generator.pth', 'diffusion.pth'], []
    ]  # fmt: skip


def test_a_work_folder_stands_for_its_last_checkpoint(checkpoints, tmp_path):
    run = tmp_path / 'run'
    run.mkdir()
    (run / 'epoch_3.pth').symlink_to(checkpoints['classifier'])
    (run / 'last_checkpoint').write_text('/gone/run/epoch_3.pth')
    (run / 'vit.py').write_text("model = dict(type='USPClassifier')\n")
    assert list(load_models([f'{run}/'], 'cpu').classifiers) == ['run']


def test_sources_that_are_refused(checkpoints, tmp_path):
    with pytest.raises(ValueError, match=r"classifier.pth' is given twice"):
        load_models([checkpoints['classifier']] * 2, 'cpu')
    with pytest.raises(FileNotFoundError, match='is no file or folder here'):
        load_models([str(tmp_path / 'absent')], 'cpu')


def test_pictures_need_an_encoder(models, photos):
    with pytest.raises(ValueError, match='--pictures needs an encoder'):
        build_app(AppModels({}, {}, {}, models.generators, {}), PictureFolder(photos, 10))


@pytest.mark.parametrize(
    ('name', 'told'),
    [
        (None, 'no picture: drop a JPEG'),
        ('text.png', "'text.png' is not an image, whatever its name says: choose a JPEG"),
        ('empty.png', "'empty.png' is not an image"),
        ('cut.png', "cannot decode image 'cut.png'"),
        ('huge.png', "'huge.png' has 9000 x 9000 pixels: the demo takes up to 64 million"),
        ('bomb.png', "'bomb.png' has too many pixels: the demo takes up to 64 million"),
    ],
)
def test_bad_uploads_are_refused_in_one_line(uploads, name, told):
    with pytest.raises(ValueError, match=told) as caught:
        read_upload(name and uploads[name])
    assert len(str(caught.value).splitlines()) == 1 and '/' not in str(caught.value)


def test_odd_uploads_are_restored(models, uploads):
    for name in ('dot.png', 'cmyk.jpg', 'moving.gif'):
        assert [one.size for one in restore_picture(only(models.restorers), uploads[name], 0.5, 0)] == [(256, 256)] * 4
    assert np.asarray(read_upload(uploads['moving.gif'])).reshape(-1, 3).max(0).tolist() == [255, 0, 0]  # the first frame


def test_a_restoration_is_that_of_python(models, uploads):
    encoder, path = only(models.restorers), uploads['good.png']
    picture, masked, restored, vae = restore_picture(encoder, path, 0.5, 3)
    expected = encoder.restore(path, mask_ratio=0.5, seed=3)
    assert np.array_equal(restored, enlarged(expected.picture)) and np.array_equal(vae, enlarged(expected.vae))
    assert not np.array_equal(picture, masked)
    for ratio, seed, told in (
        (1.0, 0, 'mask_ratio=1.0'),
        (0.5, None, 'seed=None'),
        (0.5, -1, 'seed=-1'),
        (0.5, 1.5, 'seed=1.5'),
    ):
        with pytest.raises(ValueError, match=told):
            restore_picture(encoder, path, ratio, seed)


def test_small_pictures_are_enlarged_by_whole_factors():
    assert [enlarged(Image.new('RGB', size)).size for size in ((64, 32), (100, 90), (256, 1), (700, 9))] == [
        (256, 128), (300, 270), (256, 1), (700, 9)
    ]  # fmt: skip


def test_samples_are_those_of_python_and_the_animation_ends_in_them(models):
    generator = models.generators['diffusion.pth']
    request = Request([3, 7], per_class=2, guidance=2.0, steps=3, seed=5)
    found, file = generate_pictures(generator, request)
    expected = generator.sample([3, 7], 2, guidance=2.0, steps=3, seed=5)
    assert file is None and [caption for _, caption in found] == ['three', 'three', 'seven', 'seven']
    assert np.array_equal(pixels([one for one, _ in found]), pixels(map(enlarged, expected)))
    moving, file = generate_pictures(generator, request._replace(trajectory=True))
    assert np.array_equal(pixels([one for one, _ in moving]), pixels([one for one, _ in found]))
    with Image.open(file) as animation:
        assert (animation.format, animation.n_frames, animation.size) == ('GIF', 3, (268, 268))
    Path(file).unlink()


@pytest.mark.parametrize(
    ('change', 'told'),
    [
        (dict(classes=[]), 'no classes: choose at least one'),
        (dict(classes=list(range(9))), 'up to 8 at a time'),
        (dict(classes=[10]), 'class 10 is out of range'),
        (dict(per_class=9), 'per_class=9 must be a whole number from 1 to 8'),
        (dict(steps=0), 'steps=0 must be a whole number from 1 to 250'),
        (dict(guidance=-1.0), 'guidance scale=-1'),
        (dict(seed=2.0**60), 'must be a whole number from 0 to'),
    ],
)
def test_requests_that_are_refused(models, change, told):
    with pytest.raises(ValueError, match=told):
        generate_pictures(models.generators['generator.pth'], Request([1], 1, None, 2, 0)._replace(**change))


def test_generators_of_the_same_classes_are_compared(models, monkeypatch):
    first, second = models.generators.values()
    assert class_choices(first) == list(zip(DIGITS, range(10), strict=True))
    assert [list(group) for group in by_classes(models.generators)] == [['generator.pth', 'diffusion.pth']]
    monkeypatch.setattr(second.source, 'classes', ('a', 'a', *DIGITS[2:]))
    assert class_choices(second)[:3] == [('a (0)', 0), ('a (1)', 1), ('two', 2)]
    assert [list(group) for group in by_classes(models.generators)] == [['generator.pth'], ['diffusion.pth']]


def test_classes_are_those_of_python(models, uploads):
    encoder = only(models.classifiers)
    (expected,) = encoder.classify(uploads['good.png'])
    assert classify_picture(encoder, uploads['good.png']) == {one['class']: one['score'] for one in expected}


def test_the_nearest_picture_is_itself_and_the_folder_is_encoded_once(models, photos, monkeypatch):
    folder, encoder, told, batches = PictureFolder(photos, 100), only(models.restorers), [], []
    encode = encoder.encode
    monkeypatch.setattr(encoder, 'encode', lambda images: batches.append(images) or encode(images))
    for i in (2, 0):
        path = str(photos / f'{i}.png')
        found = find_neighbours(folder, 'a', encoder, path, 24, lambda share, text: told.append((share, text)))
        assert len(found) == 4 and found[0][1] == f'{i}.png (1.000)'
    assert [len(one) for one in batches if isinstance(one, list)] == [4] and told == [
        (0.0, f'encoding picture 1 of 5 in {photos.name}')
    ]
    assert folder.summary().endswith('1 of them left out because they cannot be decoded.')
    assert len(PictureFolder(photos, 2).paths) == 2
    with pytest.raises(ValueError, match='k=0 must be a whole number from 1 to 24'):
        find_neighbours(folder, 'a', encoder, str(photos / '0.png'), 0, print)


def test_a_folder_without_a_readable_picture(models, tmp_path):
    (tmp_path / 'a.png').write_text('text')
    with pytest.raises(ValueError, match=r'none of the 1 pictures in .* can be decoded'):
        PictureFolder(tmp_path, 10).features('a', only(models.restorers), lambda share, text: None)


def test_errors_become_messages_and_only_unforeseen_ones_are_logged(caplog):
    def fail(error):
        raise error

    for error, told in ((ValueError('a <b> is wrong'), 'a &lt;b&gt; is wrong'), (OSError('no disk'), 'no disk')):
        with pytest.raises(gr.Error) as caught:
            in_turn(fail)(error)
        assert (caught.value.message, caught.value.print_exception) == (told, False)
    with pytest.raises(gr.Error, match=r'this did not work \(KeyError\): the terminal'):
        in_turn(fail)(KeyError('secret'))
    assert not in_use()


def test_one_call_at_a_time():
    inside, most = [], []

    @in_turn
    def call(number):
        inside.append(number)
        most.append(len(inside))
        time.sleep(0.02)
        inside.remove(number)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_seeds_are_whole_numbers_that_a_browser_holds():
    assert seed_number(3.0) == 3 and seed_number(2**53 - 1) == 2**53 - 1
