"""Compare a config that somebody gives with the one that the checkpoint's run had."""

from collections.abc import Iterator, Mapping
from typing import Any

#: Settings of the model that may differ: where things are, and what only training uses.
_FREE = ('path', 'load_vae', 'init_cfg', 'frozen_stages', 'drop_path_rate', 'batch_augments', 'noise', 'posterior')
_SHOWN = 3


def difference(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Name the settings of the model in which two configs differ.

    Args:
        recorded: `model` of the config that the checkpoint holds.
        given: `model` of the config that is used.

    Returns:
        'model.backbone.img_size=32 (here 64), …', at most three settings; '' if there is no difference.
    """
    theirs, ours = (dict(_settings(cfg, 'model')) for cfg in (recorded, given))
    keys = [key for key in {**theirs, **ours} if key in theirs and theirs[key] != ours.get(key)]
    named = [f'{key}={theirs[key]!r:.60} (here {ours.get(key)!r:.60})' for key in keys]
    return ', '.join(named[:_SHOWN]) + ', …' * (len(named) > _SHOWN)


def _settings(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and not key.endswith('.arch'):
        for name, value in node.items():
            if name not in _FREE:
                yield from _settings(value, f'{key}.{name}')
    else:
        yield key, list(node) if isinstance(node, tuple) else node
