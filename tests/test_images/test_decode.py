"""One decoding for every reader of image files."""

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from image_files import ALPHA, GREY, RGB, grey, orientation_exif, save_turned, write_every_kind
from mmengine import fileio
from PIL import Image, ImageFile

from usp_mm.apis import restoration
from usp_mm.apis.inference import check_images
from usp_mm.datasets import LoadImage
from usp_mm.datasets.latent_cache.crops import CroppedImages
from usp_mm.evaluation.images import FolderImages
from usp_mm.images import decode_image, image_endings, load_image, max_image_pixels
from usp_mm.images.decode import _WHOLE
from usp_mm.vaes import training


@pytest.fixture(scope='module')
def kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path_factory.mktemp('kinds')
    return root, write_every_kind(root)


def test_every_mode_becomes_its_rgb(kinds) -> None:
    root, expected = kinds
    wrong = [name for name, pixels in expected.items() if not np.array_equal(load_image(root / name), pixels)]
    assert wrong == []
    assert {Image.open(root / name).mode for name in expected} >= {
        '1', 'L', 'LA', 'P', 'RGB', 'RGBA', 'CMYK', 'YCbCr', 'LAB', 'I;16', 'I;16B', 'I', 'F',
    }  # fmt: skip


def test_every_reader_gives_the_same_pixels(kinds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latent cache, a data set's LoadImage, evaluation, VAE training and reconstruction; no resizing at this size."""
    root, expected = kinds
    names = sorted(expected)
    source = FolderImages(root)
    assert source.files == names
    evaluated = {names[i]: image for numbers, batch in source.batches(8) for i, image in zip(numbers, batch, strict=True)}
    cached = CroppedImages(str(root), names, 16, dict(mode='center'), 1)
    model = SimpleNamespace(backbone=SimpleNamespace(geometry=SimpleNamespace(img_size=16)))
    monkeypatch.setattr(restoration, 'restoration_picture', lambda model, samples, *_: samples)
    restored = restoration.restore_images(model, [root / name for name in names])
    for i, name in enumerate(names):
        pixels = expected[name]
        assert np.array_equal(LoadImage()(dict(img_path=str(root / name)))['img'][:, :, ::-1], pixels), name
        assert np.array_equal(evaluated[name].permute(1, 2, 0), pixels), name
        assert np.array_equal(cached[i][0].permute(1, 2, 0), pixels), name
        assert np.array_equal(training._read(root / name, 16).permute(1, 2, 0), pixels), name
        assert np.array_equal(restored[i]['inputs'].flip(0).permute(1, 2, 0), pixels), name


def test_jpegs_and_xmp_are_turned(tmp_path: Path) -> None:
    """A portrait of 20 by 30 that a phone stores as 30 by 20."""
    upright = np.zeros((30, 20, 3), np.uint8)
    upright[:10] = 255
    for orientation in (5, 6, 7, 8):
        image = load_image(save_turned(upright, orientation, tmp_path / 'phone.jpg'))
        assert image.size == (20, 30) and np.abs(np.asarray(image).astype(int) - upright).max() < 40
        assert image.getexif().get(0x0112, 1) == 1, 'a second reader must not turn it again'
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    Image.fromarray(RGB).save(tmp_path / 'edited.webp', lossless=True, xmp=xmp)
    assert np.array_equal(load_image(tmp_path / 'edited.webp'), RGB[::-1, ::-1])


def test_broken_exif_is_told_and_the_picture_taken_as_stored(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / 'odd.png', exif=b'Exif\0\0XX*\0garbage')
    with pytest.warns(UserWarning, match=r"EXIF data of '.*odd\.png' can't be read"):
        assert np.array_equal(load_image(tmp_path / 'odd.png'), RGB)


def test_12_bits_and_white_at_zero(tmp_path: Path) -> None:
    """TIFFs whose tags say more than Pillow's mode."""
    values = np.linspace(0, 65535, 64).astype('<u2').reshape(8, 8)
    Image.fromarray(values).save(tmp_path / 'x.tiff')
    content = bytearray((tmp_path / 'x.tiff').read_bytes())
    entry = content.index((262).to_bytes(2, 'little') + b'\x03\0\x01\0\0\0')
    content[entry + 8 : entry + 10] = b'\0\0'
    white_is_zero = np.asarray(decode_image(bytes(content), 'x').image)[..., 0]
    assert white_is_zero[0, 0] == 255 and white_is_zero[-1, -1] == 0
    from usp_mm.images.decode import _to_8_bits

    image = Image.fromarray(np.array([[0, 2047, 4095]], np.uint16))
    image.tag_v2 = {258: (12,)}
    assert np.asarray(_to_8_bits(image, 'x')).tolist() == [[0, 127, 255]]


@pytest.mark.parametrize(
    ('values', 'told'),
    [
        (np.array([[0, 70000]], np.int32), r'holds 32-bit integers from 0 to 70000 \(mode I\), .*: store it with 8 or 16 bits'),
        (np.array([[-3, 9]], np.int32), r'holds 32-bit integers from -3 to 9 \(mode I\)'),
        (np.array([[0, 255]], np.float32), r'holds floats from 0 to 255 \(mode F\), of which only \[0, 1\]'),
        (np.array([[-0.1, 0.5]], np.float32), r'holds floats from -0.1 to 0.5 \(mode F\)'),
        (np.array([[0.1, np.nan]], np.float32), r'holds floats from nan to nan \(mode F\)'),
    ],
)
def test_values_without_a_range_are_refused(tmp_path: Path, values: np.ndarray, told: str) -> None:
    Image.fromarray(values).save(tmp_path / 'x.tiff')
    for read in (load_image, lambda path: LoadImage()(dict(img_path=str(path)))):
        with pytest.raises(ValueError, match=rf"image '{tmp_path}/x.tiff' {told}"):
            read(tmp_path / 'x.tiff')


def raise_permission_error(path: str, backend_args: dict | None) -> bytes:
    """Root may read everything, so a test has to pretend."""
    raise PermissionError(13, 'Permission denied', path)


def test_unreadable_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.effect_noise((64, 64), 50).convert('RGB').save(tmp_path / 'whole.jpg', quality=95)
    half = (tmp_path / 'whole.jpg').read_bytes()
    (tmp_path / 'half.jpg').write_bytes(half[: len(half) // 2])
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'folder.png').mkdir()
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)  # as some libraries do
    for name, reason in (('half.jpg', 'truncated'), ('text.png', 'cannot identify')):
        with pytest.raises(ValueError, match=rf"cannot decode image '{tmp_path}/{name}': .*{reason}.*; replace or delete it"):
            load_image(tmp_path / name)
    with pytest.raises(ValueError, match=rf"cannot read image '{tmp_path}/folder.png'"):
        load_image(tmp_path / 'folder.png')
    with pytest.raises(FileNotFoundError, match=r'gone\.png'):
        load_image(tmp_path / 'gone.png')
    with monkeypatch.context() as locked:
        locked.setattr(fileio, 'get', raise_permission_error)
        with pytest.raises(ValueError, match=rf"cannot read image '{tmp_path}/whole.jpg': .*Permission denied"):
            load_image(tmp_path / 'whole.jpg')
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    for read in (load_image, lambda path: check_images([path])):
        with pytest.raises(ValueError, match=rf"cannot decode image '{tmp_path}/whole.jpg': .*4096 pixels.* exceeds limit"):
            read(tmp_path / 'whole.jpg')


def test_the_number_of_pixels_is_limited_by_one_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow itself only warns of a picture of 13,000 × 13,000."""
    path = tmp_path / 'large.png'
    Image.fromarray(np.zeros((30, 50), np.uint8)).save(path)
    for pixels, told in (
        (1000, r'50 × 30 = 1,500 pixels exceed the limit of 1,000: .*USP_MAX_IMAGE_PIXELS=1500'),
        (100, 'MAX_IMAGE_P'),
    ):
        monkeypatch.setenv('USP_MAX_IMAGE_PIXELS', str(pixels))
        for read in (load_image, lambda path: check_images([path])):
            with pytest.warns(Image.DecompressionBombWarning) if pixels == 1000 else nullcontext():
                with pytest.raises(ValueError, match=rf"^cannot decode image '{path}': .*{told}") as error:
                    read(path)
            assert '\n' not in str(error.value)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    for allowed in ('1500', '0'):
        monkeypatch.setenv('USP_MAX_IMAGE_PIXELS', allowed)
        assert load_image(path).size == (50, 30) and Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setenv('USP_MAX_IMAGE_PIXELS', '1e9')
    with pytest.raises(ValueError, match="USP_MAX_IMAGE_PIXELS='1e9' must be a whole number of pixels, 0 for no limit"):
        load_image(path)
    monkeypatch.delenv('USP_MAX_IMAGE_PIXELS')
    assert max_image_pixels() == 100
    monkeypatch.undo()
    assert max_image_pixels() == 89_478_485 < 13_000**2


def test_the_setting_of_the_process_for_truncated_images_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(RGB).save(tmp_path / 'x.png')
    (tmp_path / 'text.png').write_text('no image')
    monkeypatch.setattr(ImageFile, 'LOAD_TRUNCATED_IMAGES', True)
    load_image(tmp_path / 'x.png')
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    with pytest.raises(ValueError, match='cannot decode'):
        load_image(tmp_path / 'text.png')
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    with _WHOLE:  # another thread is within
        load_image(tmp_path / 'x.png')
        assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_alpha_is_dropped_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    image = Image.merge('LA', (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    image.convert('PA').save(tmp_path / 'pa.tiff')
    assert np.array_equal(load_image(tmp_path / 'pa.tiff'), grey(GREY))
    image = Image.fromarray(RGB).quantize(8)
    image.save(tmp_path / 'p.png', transparency=bytes(8))
    assert np.array_equal(load_image(tmp_path / 'p.png'), np.asarray(image.convert('RGB')))
    assert [str(warning.message) for warning in recwarn] == []


def test_remote_files(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    Image.fromarray(RGB).rotate(180).save(content, 'PNG', exif=orientation_exif(3))
    asked = []
    monkeypatch.setattr(fileio, 'get', lambda path, **kwargs: asked.append((path, kwargs)) or content.getvalue())
    loaded = LoadImage(backend_args=dict(backend='petrel'))(dict(img_path='s3://bucket/x.png'))['img']
    assert np.array_equal(loaded[:, :, ::-1], RGB)
    assert asked == [('s3://bucket/x.png', dict(backend_args=dict(backend='petrel')))]


def test_options_of_loading(tmp_path: Path) -> None:
    (tmp_path / 'text.png').write_text('no image')
    assert LoadImage(ignore_empty=True).transform(dict(img_path=str(tmp_path / 'text.png'))) is None
    Image.fromarray(RGB).save(tmp_path / 'x.png')
    results = LoadImage(to_float32=True)(dict(img_path=str(tmp_path / 'x.png')))
    with pytest.raises(TypeError, match='imdecode_backend'):
        LoadImage(imdecode_backend='cv2')
    assert results['img'].dtype == np.float32 and results['img_shape'] == results['ori_shape'] == (16, 16)


def test_endings_are_what_pillow_reads() -> None:
    endings = image_endings()
    assert endings >= {
        '.jpg',
        '.jpeg',
        '.jpe',
        '.png',
        '.webp',
        '.tif',
        '.tiff',
        '.bmp',
        '.gif',
        '.ppm',
        '.pgm',
        '.jp2',
        '.mpo',
    }
    assert not endings & {'.pdf', '.eps', '.ps', '.mpg', '.mpeg', '.h5', '.hdf', '.wmf', '.fits', '.txt', ''}
