"""Checkpoints and model folders that several files take."""

import pytest
from helpers.trained_files import KINDS, picture, trained

import usp_mm


@pytest.fixture(scope='session')
def files(tmp_path_factory, tiny_vae_folder):
    """Checkpoint of each kind, and a picture."""
    folder = tmp_path_factory.mktemp('trained')
    found = {kind: trained(kind, tiny_vae_folder, folder / f'{kind}.pth') for kind in KINDS}
    return found | dict(picture=picture(folder / 'picture.png'), other=picture(folder / 'other.png', 1))


@pytest.fixture(scope='session')
def folders(files, tmp_path_factory):
    """Model folder of each kind."""
    folder = tmp_path_factory.mktemp('folders')
    for kind in KINDS:
        usp_mm.from_pretrained(files[kind], device='cpu').save_pretrained(folder / kind)
    return {kind: folder / kind for kind in KINDS}
