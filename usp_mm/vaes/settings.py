"""The argument `vae` of data preprocessors and encoders, and the older keys that it replaces."""

from collections.abc import Mapping
from typing import Any

from usp_mm.renaming.arguments import warn_renamed

DEFAULT = 'sd-f8d4'
#: Older key of a data preprocessor -> key of its `vae`. An encoder had all of them in `codec`.
_OLDER = {'vae_path': 'path', 'vae_dtype': 'dtype', 'vae_stats': 'stats', 'encode_batch_size': 'encode_batch_size'}


def vae_settings(vae: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """The argument `vae` as a dict with `name`: a string is a preset's name, and a dict without a name is of the default."""
    return dict(name=vae) if isinstance(vae, str) else {'name': DEFAULT, **(vae or {})}


def vae_name(part: Mapping[str, Any] | None) -> str:
    """The preset that the config of a data preprocessor or a network names in `vae`."""
    name: str = vae_settings((part or {}).get('vae'))['name']
    return name


def fold_preprocessor(cfg: Any, warn: bool = True) -> None:
    """Replace `vae_path`, `vae_dtype`, `vae_stats` and `encode_batch_size` in a data preprocessor's config by `vae`.

    An older key wins over one in `vae`: it can only have been set on top of a config in the current form.

    Args:
        cfg: Dict that is changed in place.
        warn: Whether to issue a FutureWarning for each older key.
    """
    for older in [key for key in _OLDER if key in cfg]:
        if warn:
            warn_renamed(f'data_preprocessor.{older}', f'data_preprocessor.vae.{_OLDER[older]}')
        cfg['vae'] = {**vae_settings(cfg.get('vae')), _OLDER[older]: cfg.pop(older)}


def fold_encoder(cfg: Any, warn: bool = True) -> None:
    """Replace `codec` in an encoder's config by `encode_images` and `vae`, in place; see `fold_preprocessor`."""
    if 'codec' not in cfg:
        return
    if warn:
        warn_renamed('backbone.codec', 'backbone.vae with backbone.encode_images=True')
    codec = cfg.pop('codec')
    cfg['encode_images'] = codec is not None
    if codec:
        cfg['vae'] = {**vae_settings(cfg.get('vae')), **codec}


def fold_older_keys(node: Any, key: str = '', warn: bool = True) -> None:
    """Replace the older keys of all data preprocessors and encoders in a config, in place.

    Args:
        node: A whole config, or a part of it.
        key: Name of the part in the config.
        warn: False for a config that a checkpoint holds, in which nobody can rename a key.
    """
    if isinstance(node, list | tuple):
        for one in node:
            fold_older_keys(one, key, warn)
    if not isinstance(node, dict):
        return
    kind = node.get('type')
    kind = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    if kind.endswith('LatentDataPreprocessor') or (not kind and key == 'data_preprocessor'):
        fold_preprocessor(node, warn)
    if kind.endswith('USPViT') or (not kind and key == 'backbone'):
        fold_encoder(node, warn)
    for name, value in node.items():
        fold_older_keys(value, str(name), warn)
