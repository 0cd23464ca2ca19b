import numpy as np
import pytest
import torch
from helpers.golden import load

from usp_mm.functional.pos_embed import resize_pos_embed, sincos_table


def test_tables_equal_the_official_ones():
    golden = load('pos_embed')
    np.testing.assert_allclose(sincos_table(48, (14, 14), cls_token=True), golden['grid14_dim48_cls'], rtol=0, atol=1e-7)
    np.testing.assert_allclose(sincos_table(1152, (16, 16))[::37, ::31], golden['grid16_dim1152'], rtol=0, atol=1e-7)


def test_width_must_divide_by_four():
    with pytest.raises(ValueError, match='multiple of 4, got 50'):
        sincos_table(50, (2, 2))


def test_resize_keeps_the_prefix_and_interpolates_without_antialiasing():
    table = torch.randn(1, 1 + 16, 8, generator=torch.Generator().manual_seed(0))
    out = resize_pos_embed(table, (4, 4), (6, 5))
    grid = table[:, 1:].reshape(1, 4, 4, 8).permute(0, 3, 1, 2)
    plain = torch.nn.functional.interpolate(grid, size=(6, 5), mode='bicubic', align_corners=False, antialias=False)
    torch.testing.assert_close(out[:, 0], table[:, 0], rtol=0, atol=0)
    torch.testing.assert_close(out[:, 1:], plain.permute(0, 2, 3, 1).flatten(1, 2), rtol=0, atol=0)
    assert resize_pos_embed(table, (4, 4), (4, 4)) is table
