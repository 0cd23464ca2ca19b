"""Small models of each kind, pictures good and bad, and a launched demo."""

import struct
import zlib

import pytest
from helpers.trained_files import KINDS, picture, trained
from PIL import Image

from usp_mm.app.build import build_app
from usp_mm.app.models import load_models
from usp_mm.app.neighbours import PictureFolder
from usp_mm.app.server import free_port, launch_page, private_folder


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory, tiny_vae_folder):
    folder = tmp_path_factory.mktemp('app')
    return {kind: str(trained(kind, tiny_vae_folder, folder / f'{kind}.pth')) for kind in KINDS}


@pytest.fixture(scope='session')
def models(checkpoints):
    return load_models(list(checkpoints.values()), 'cpu')


@pytest.fixture(scope='session')
def photos(tmp_path_factory):
    """Four pictures, and one that is broken."""
    folder = tmp_path_factory.mktemp('photos')
    for i in range(4):
        picture(folder / f'{i}.png', i)
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff broken')
    return folder


@pytest.fixture(scope='session')
def uploads(tmp_path_factory):
    """Files that users drop: name -> path."""
    folder = tmp_path_factory.mktemp('uploads')
    picture(folder / 'good.png')
    Image.new('RGB', (1, 1), 'red').save(folder / 'dot.png')
    Image.open(folder / 'good.png').convert('CMYK').save(folder / 'cmyk.jpg')
    frames = [Image.new('RGB', (40, 40), colour) for colour in ('red', 'blue')]
    frames[0].save(folder / 'moving.gif', save_all=True, append_images=frames[1:])
    (folder / 'text.png').write_text('<b>hello</b>')
    (folder / 'empty.png').touch()
    (folder / 'cut.png').write_bytes((folder / 'good.png').read_bytes()[:200])
    for name, side in (('huge.png', 9000), ('bomb.png', 60000)):
        (folder / name).write_bytes(_empty_png(side))
    return {path.name: str(path) for path in folder.iterdir()}


def _empty_png(side):
    """A PNG of this size in which no pixel is stored."""

    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

    header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(b'')) + chunk(b'IEND', b'')


@pytest.fixture(scope='session')
def demo(models, photos):
    """The page, and its address while it is served."""
    with private_folder():
        page = build_app(models, PictureFolder(photos, 100))
        port = free_port('127.0.0.1', None)
        launch_page(page, '127.0.0.1', port)
        try:
            yield page, f'http://127.0.0.1:{port}'
        finally:
            page.close(verbose=False)
