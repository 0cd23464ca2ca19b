"""Titles around pictures of cells, and names on pictures."""

import numpy as np
import pytest

from usp_mm.images import named, titled


def ink(picture):
    """Columns and rows of a picture that hold anything but white."""
    dark = (picture < 128).all(-1)
    return np.flatnonzero(dark.any(0)), np.flatnonzero(dark.any(1))


def test_the_picture_is_unchanged_and_each_text_is_beside_its_cells():
    picture = np.random.default_rng(0).integers(130, 256, (2 * 68, 4 * 68, 3), dtype=np.uint8)
    whole = titled(picture, ['original', 'masked', 'restored', 'VAE alone'], ['golden retriever', '3'])
    top, left = whole.shape[0] - picture.shape[0], whole.shape[1] - picture.shape[1]
    np.testing.assert_array_equal(whole[top:, left:], picture)
    for i in range(4):
        columns, rows = ink(whole[:top, left + 68 * i : left + 68 * (i + 1)])
        assert len(rows) >= 5 and abs(columns.mean() - 34) < 6
    for i in range(2):
        columns, rows = ink(whole[top + 68 * i : top + 68 * (i + 1), :left])
        assert len(columns) >= 3 and abs(rows.mean() - 34) < 8
    assert (whole[:top, :left] == 255).all()


@pytest.mark.parametrize(('columns', 'rows'), [([], []), (['a'], []), ([], ['b'])])
def test_bands_are_there_for_what_is_titled(columns, rows):
    picture = np.zeros((40, 40, 3), np.uint8)
    height, width, _ = titled(picture, columns, rows).shape
    assert (height > 40, width > 40) == (bool(columns), bool(rows))


def test_a_long_title_is_broken_and_made_smaller():
    picture = np.zeros((68, 2 * 68, 3), np.uint8)
    one, two = (titled(picture, [text, 'x']).shape[0] - 68 for text in ('original', 'VAE of the original'))
    assert two >= 1.6 * one
    assert titled(picture, ['Incomprehensibilities', 'x']).shape[1] == 2 * 68


def test_a_name_stays_inside_the_picture():
    picture = np.full((128, 128, 3), 120, np.uint8)
    for place in ((0, 0), (127, 127), (64, 64)):
        drawn = named(picture, [('canvas', place)])
        changed = np.argwhere((drawn != picture).any(-1))
        assert len(changed) > 100 and drawn.max() > 240 and drawn.min() < 15
        y, x = changed.mean(0)
        assert abs(x - min(max(place[0], 24), 104)) < 12 and abs(y - min(max(place[1], 8), 120)) < 8
    np.testing.assert_array_equal(named(picture, []), picture)
