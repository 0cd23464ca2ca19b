"""Collate the samples of a latent cache into a batch."""

from collections.abc import Sequence
from typing import Any

from mmengine.dataset import default_collate
from mmengine.registry import FUNCTIONS
from torch import Tensor

#: Fields that `LatentCacheDataset` reads into one tensor.
READ_TOGETHER = ('inputs', 'teacher_tokens')


@FUNCTIONS.register_module()
def collate_latents(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """MMEngine's `default_collate`, without copying samples that were read together.

    `LatentCacheDataset` reads a batch into one tensor, of which each sample's inputs are a row: that tensor is the
    batch. Stacking the rows into another takes up to four times as long as reading them did, most of it in page faults.
    """
    whole = {key: _whole([sample[key] for sample in batch]) for key in READ_TOGETHER if key in batch[0]}
    together = [key for key, tensor in whole.items() if tensor is not None]
    rest = default_collate([{key: value for key, value in sample.items() if key not in together} for sample in batch])
    return {**rest, **{key: whole[key] for key in together}}


def _whole(rows: Sequence[Any]) -> Tensor | None:
    """The tensor whose rows, all and in order, are these samples; None if there is none."""
    whole = rows[0]._base
    if whole is None or len(whole) != len(rows):
        return None
    same = all(x._base is whole and x.storage_offset() == row * x.numel() for row, x in enumerate(rows))
    return whole if same else None
