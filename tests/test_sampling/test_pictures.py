"""Grids and animations of samples."""

import sys

import numpy as np
import pytest
from PIL import Image

from usp_mm.sampling.pictures import draw_grid, write_animation, write_picture


def flat(*greys, side=(6, 4)):
    return np.stack([np.full((*side, 3), grey, np.uint8) for grey in greys])


def test_one_row_a_class_and_white_where_a_row_is_short(tmp_path):
    write_picture(tmp_path / 'grid.png', draw_grid([flat(10, 20, 30), flat(40)]))
    grid = np.asarray(Image.open(tmp_path / 'grid.png'))
    assert grid.shape == (2 + 2 * (6 + 2), 2 + 3 * (4 + 2), 3)
    cells = grid[2:, 2:].reshape(2, 8, 3, 6, 3)[:, :6, :, :4].transpose(0, 2, 1, 3, 4).reshape(2, 3, -1)
    assert (cells == cells[..., :1]).all()
    assert cells[..., 0].tolist() == [[10, 20, 30], [40, 255, 255]]
    assert (grid[:2] == 255).all() and (grid[:, :2] == 255).all() and (grid[8:10] == 255).all()


def frames(num):
    return [flat(20 * k, side=(15, 17))[0] for k in range(num)]


def test_gif(tmp_path):
    write_animation(tmp_path / 'a.gif', frames(7))
    with Image.open(tmp_path / 'a.gif') as movie:
        assert movie.n_frames == 7 and movie.info['loop'] == 0
        shown = []
        for k in range(7):
            movie.seek(k)
            shown.append((np.asarray(movie.convert('RGB')), movie.info['duration']))
    for k, (frame, milliseconds) in enumerate(shown):
        np.testing.assert_array_equal(frame, frames(7)[k])
        assert milliseconds == (1500 if k == 6 else 100)


def test_mp4(tmp_path):
    from imageio.v3 import imread

    write_animation(tmp_path / 'a.mp4', frames(7))
    movie = imread(tmp_path / 'a.mp4', plugin='pyav')
    assert movie.shape == (7 + 14, 16, 18, 3)
    expected = [20 * k for k in range(7)] + [120] * 14
    np.testing.assert_allclose(movie.mean((1, 2, 3)), expected, atol=4)


def test_what_cannot_be_written(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'.*a\.webm' must end in \.gif or \.mp4"):
        write_animation(tmp_path / 'a.webm', frames(2))
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(ValueError, match=r'an \.mp4 needs imageio and PyAV .*: pip install imageio av, or write a \.gif'):
        write_animation(tmp_path / 'a.mp4', frames(2))
    assert list(tmp_path.iterdir()) == []
