"""How the posterior moments of a view, and a teacher's tokens of it, lie on disk: one fixed-size record each."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from usp_mm.config.options import STORAGES, STORES
from usp_mm.presets import lookup
from usp_mm.vaes.base import LOGVAR_MAX, LOGVAR_MIN

_NUMPY = {'float16': np.dtype('<f2'), 'bfloat16': np.dtype('<i2'), 'float32': np.dtype('<f4'), 'uint8': np.dtype('u1')}


class MomentStorage:
    """Moments float32[N, 2C, h, w] to records and back.

    A float field is a rounding to its dtype; NumPy has no bfloat16, so its 16 bits are stored as
    int16. A 'uint8' log-variance is clamped to [-30, 20] and coded as `low + step * code`, where
    `low` and `step` span the range of one channel of one view. Its error is at most half a step,
    range / 510: for a typical range of 12 the posterior's standard deviation is off by at most
    1.2 %, and by no more than 5 % for the widest range of 50. The stored mean is already rounded
    by far more than that fraction of a standard deviation.

    Args:
        dtype: A key of `usp_mm.config.options.STORAGES`.
        store: 'moments' or 'mean'.
        channels: C, of the latent.
        latent_size: Height and width of a latent, h = w.
    """

    def __init__(self, dtype: str, store: str, channels: int, latent_size: int) -> None:
        fields = dict(lookup(STORAGES, dtype, 'storage dtype'))
        if store not in STORES:
            raise ValueError(f"store='{store}' must be one of {STORES}")
        if store == 'mean':
            del fields['logvar']
        self.dtypes, self.channels, self.latent_size = fields, channels, latent_size
        shape = (channels, latent_size, latent_size)
        layout: list[tuple] = [(name, _NUMPY[dtype], shape) for name, dtype in fields.items()]
        if fields.get('logvar') == 'uint8':
            layout.insert(1, ('logvar_range', np.dtype('<f4'), (channels, 2)))
        self.record = np.dtype(layout, align=True)

    @property
    def fields(self) -> dict[str, str]:
        """What each field of the record holds, for the manifest."""
        notes = {'bfloat16': 'bfloat16 (its bits as int16)', 'uint8': 'uint8 code: logvar = low + step * code'}
        described = {name: notes.get(dtype) or dtype for name, dtype in self.dtypes.items()}
        if self.dtypes.get('logvar') == 'uint8':
            described['logvar_range'] = 'float32 (low, step) of each channel'
        return described

    def unstorable(self, moments: Tensor) -> Tensor:
        """bool[N]: which moments are NaN or infinite, or become so when stored."""
        parts = dict(zip(('mean', 'logvar'), moments.chunk(2, dim=1), strict=True))
        finite = moments.flatten(1).isfinite().all(1)
        for name, dtype in self.dtypes.items():
            if dtype != 'uint8':
                finite &= parts[name].to(getattr(torch, dtype)).flatten(1).isfinite().all(1)
        return ~finite

    def encode(self, moments: Tensor) -> np.ndarray:
        """float32[N, 2C, h, w] on the CPU -> record[N]."""
        records = np.zeros(len(moments), self.record)
        for name, part in zip(('mean', 'logvar'), moments.chunk(2, dim=1), strict=True):
            dtype = self.dtypes.get(name)
            if dtype == 'uint8':
                records['logvar_range'], records['logvar'] = _quantise(part)
            elif dtype is not None:
                stored = part.to(getattr(torch, dtype))
                records[name] = (stored.view(torch.int16) if dtype == 'bfloat16' else stored).numpy()
        return records

    def decode(self, records: np.ndarray) -> Tensor:
        """record[N] -> moments float32[N, 2C, h, w]; a log-variance that was not stored is -30 (deviation 3e-7)."""
        shape = (len(records), 2 * self.channels, self.latent_size, self.latent_size)
        moments = torch.from_numpy(np.empty(shape, np.float32))  # NumPy asks for huge pages: fewer page faults than torch.empty
        for name, part in zip(('mean', 'logvar'), moments.chunk(2, dim=1), strict=True):
            dtype = self.dtypes.get(name)
            if dtype is None:
                part.fill_(LOGVAR_MIN)
                continue
            stored = torch.from_numpy(records[name])
            part.copy_(stored.view(torch.bfloat16) if dtype == 'bfloat16' else stored)
            if dtype == 'uint8':
                low, step = torch.from_numpy(records['logvar_range'])[..., None, None].unbind(2)
                part.mul_(step).add_(low)
        return moments


class TokenStorage:
    """A teacher's tokens float32[N, L, E] to records and back, rounded to a dtype.

    Args:
        dtype: 'float16', 'bfloat16' or 'float32'.
        grid: (h, w) with L = h·w.
        dim: E.
    """

    def __init__(self, dtype: str, grid: Sequence[int], dim: int) -> None:
        self.dtype = dtype
        self.record = np.dtype([('tokens', _NUMPY[dtype], (grid[0] * grid[1], dim))], align=True)

    def unstorable(self, tokens: Tensor) -> Tensor:
        """bool[N]: which tokens are NaN or infinite, or become so when stored."""
        return ~tokens.to(getattr(torch, self.dtype)).flatten(1).isfinite().all(1)

    def encode(self, tokens: Tensor) -> np.ndarray:
        """float32[N, L, E] on the CPU -> record[N]."""
        records = np.zeros(len(tokens), self.record)
        stored = tokens.to(getattr(torch, self.dtype))
        records['tokens'] = (stored.view(torch.int16) if self.dtype == 'bfloat16' else stored).numpy()
        return records

    def decode(self, records: np.ndarray) -> Tensor:
        """record[N] -> [N, L, E] in the dtype stored: half the way to the device of float32."""
        stored = torch.from_numpy(np.ascontiguousarray(records['tokens']))
        return stored.view(torch.bfloat16) if self.dtype == 'bfloat16' else stored


def _quantise(logvar: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """float32[N, C, h, w] -> (float32[N, C, 2] of low and step, uint8[N, C, h, w] codes)."""
    logvar = logvar.clamp(LOGVAR_MIN, LOGVAR_MAX)
    low, high = logvar.amin((2, 3)), logvar.amax((2, 3))
    step = (high - low) / 255
    codes = (logvar - low[..., None, None]) / step.clamp_min(torch.finfo(torch.float32).tiny)[..., None, None]
    return torch.stack([low, step], dim=2).numpy(), codes.round_().clamp_(0, 255).to(torch.uint8).numpy()
