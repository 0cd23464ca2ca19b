"""Names of the official USP code (and of MAE and timm's ViT, which share them).

Only prefixes differ: an official pretraining checkpoint is one flat module, ours is backbone and
neck; an official classifier's `head` is mmpretrain's `head.layers.head`.
"""

from collections.abc import Mapping

from torch import Tensor

from usp_mm.models.weight_transfer import ENCODER_KEYS

_NECK = ('mask_token', 'decoder_')
_HEAD = 'head.'


def from_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official pretraining or classifier weights -> keys of `USP` or `USPClassifier`.

    Raises:
        ValueError: a key of neither.
    """
    return {_to_ours(name): value for name, value in state_dict.items()}


def to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `from_official`."""
    return {_to_theirs(name): value for name, value in state_dict.items()}


def _to_ours(name: str) -> str:
    if name.startswith(ENCODER_KEYS):
        return f'backbone.{name}'
    if name.startswith(_NECK):
        return f'neck.{name}'
    if name.startswith(_HEAD):
        return f'head.layers.{name}'
    raise ValueError(
        f"'{name}' is not a key of an official USP, MAE or timm ViT checkpoint: expected names that start with "
        f'{(*ENCODER_KEYS, *_NECK, _HEAD)}'
    )


def _to_theirs(name: str) -> str:
    for prefix in ('backbone.', 'neck.', 'head.layers.'):
        if name.startswith(prefix):
            return name[len(prefix) :]
    raise ValueError(f"'{name}' is not a key of USP or USPClassifier")
