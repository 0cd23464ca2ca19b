"""Convert images or latents to sequences of flattened patches and back (MAE, arXiv 2111.06377, section 3).

Shape legend: N batch, C channels, H and W sides, P patch side, L = (H/P)·(W/P) tokens.
"""

from torch import Tensor


def patchify(x_NCHW: Tensor, patch_size: int) -> Tensor:
    """[N, C, H, W] -> [N, L, P·P·C]: tokens in row-major order, the values of a token in the order row, column, channel."""
    n, c, h, w = x_NCHW.shape
    p = patch_size
    if h % p or w % p:
        raise ValueError(f'cannot cut a {h}x{w} map into {p}x{p} patches: both sides must be multiples of {p}')
    x = x_NCHW.reshape(n, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(n, (h // p) * (w // p), p * p * c)


def unpatchify(x_NLD: Tensor, patch_size: int, grid: tuple[int, int]) -> Tensor:
    """[N, L, P·P·C] -> [N, C, H, W], the inverse of `patchify`; `grid` is (H/P, W/P)."""
    n, length, dim = x_NLD.shape
    p, (rows, cols) = patch_size, grid
    assert length == rows * cols and dim % (p * p) == 0, (tuple(x_NLD.shape), patch_size, grid)
    x = x_NLD.reshape(n, rows, cols, p, p, dim // (p * p))
    return x.permute(0, 5, 1, 3, 2, 4).reshape(n, dim // (p * p), rows * p, cols * p)


def patch_statistics(target_NLD: Tensor, over: str) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation √(unbiased variance + 1e-6) of patches [N, L, D], float32, to broadcast with them.

    Args:
        over: 'patch' for the statistics of each token (section 3.1), 'image' for those of the whole image.
    """
    target = target_NLD.float()
    dims = {'patch': (-1,), 'image': (-2, -1)}[over]
    return target.mean(dim=dims, keepdim=True), (target.var(dim=dims, keepdim=True) + 1e-6).sqrt()


def normalize_target(target_NLD: Tensor, over: str | None) -> Tensor:
    """The reconstruction target of patches [N, L, D], float32: normalised, or unchanged if `over` is None (Table 8c)."""
    target = target_NLD.float()
    if over is None:
        return target
    mean, std = patch_statistics(target, over)
    return (target - mean) / std
