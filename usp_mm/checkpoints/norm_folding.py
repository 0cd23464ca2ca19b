"""Fold USP's affine norms into adaLN (USP, arXiv 2503.06132, section 2.3; DiT, arXiv 2212.09748, section 3.2).

With n the normalised token, w and b the norm's weight and bias, and (shift, scale) linear in SiLU(c):
(w·n + b)(1 + scale) + shift = n·w(1 + scale) + (b(1 + scale) + shift), a norm without w and b under
1 + scale' = w(1 + scale), shift' = shift + b(1 + scale), which are linear in SiLU(c) too.
"""

import torch
from torch import Tensor

from .conversion_data import Entries, Entry

FOLDED = 'folded (norms into adaLN, one way)'
#: Norm -> positions of its shift and scale among the six parts of adaLN's linear layer.
_PARTS = {'norm1': (0, 1), 'norm2': (3, 4)}


def has_norms(entries: Entries) -> bool:
    """Whether the blocks' norms have weights of their own."""
    return any(f'.{norm}.' in name for name in entries for norm in _PARTS)


def fold_norms(entries: Entries) -> Entries:
    """Remove affine norms from a network with official DiT names; its function stays the same up to rounding.

    There is no inverse, since w and b can't be separated from scale and shift.

    Raises:
        ValueError: The norms have no bias (RMSNorm), or adaLN does not have six parts.
    """
    result = dict(entries)
    for block in sorted({name.split('.norm1.')[0] for name in entries if '.norm1.' in name}):
        names = [f'{block}.adaLN_modulation.1.{kind}' for kind in ('weight', 'bias')]
        linear = [entries[name].value.double().clone() for name in names]
        width = linear[0].shape[1]
        if linear[0].shape[0] != 6 * width or f'{block}.norm1.bias' not in entries:
            raise ValueError(
                f'{block}: norm1 and adaLN ({list(linear[0].shape)}) are not LayerNorm under adaLN-Zero with shifts, so they '
                'cannot be folded (RMSNorm, or adaLN without shift?)'
            )
        sources = [entries[name].sources for name in names]
        for norm, (shift, scale) in _PARTS.items():
            affine = [result.pop(f'{block}.{norm}.{kind}') for kind in ('weight', 'bias')]
            weight, bias = (x.view(6, width, *x.shape[1:]) for x in linear)
            w, b = (x.value.double() for x in affine)
            _fold(weight, bias, shift, scale, w, b)
            sources = [before + affine[0].sources + affine[1].sources for before in sources]
        for name, value, origin in zip(names, linear, sources, strict=True):
            result[name] = Entry(value.to(entries[name].value.dtype), origin, FOLDED)
    return result


def _fold(weight: Tensor, bias: Tensor, shift: int, scale: int, w: Tensor, b: Tensor) -> None:
    """Fold w and b into weight [6, D, D] and bias [6, D] in place. The shift comes first, as it needs the old scale."""
    with torch.no_grad():
        weight[shift] += b[:, None] * weight[scale]
        bias[shift] += b * (1 + bias[scale])
        weight[scale] *= w[:, None]
        bias[scale] = w * (1 + bias[scale]) - 1
