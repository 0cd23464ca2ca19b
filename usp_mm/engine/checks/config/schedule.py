"""Check that training does not end before a scheduler begins."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config


def check_schedule(cfg: Config) -> None:
    """Refuse a training that has no more epochs than a scheduler waits before it begins.

    Raises:
        ValueError: Training is too short; the message names both numbers and the options that shorten the warm-up.
    """
    max_epochs = (cfg.get('train_cfg') or {}).get('max_epochs')
    for place, scheduler in schedulers_in('param_scheduler', cfg.get('param_scheduler')):
        begin = scheduler.get('begin', 0)
        if max_epochs is not None and scheduler.get('by_epoch', True) and begin >= max_epochs:
            warmup = f'{place.rsplit(".", 1)[0]}.0.end=E ' if '.' in place else ''
            raise ValueError(
                f'train_cfg.max_epochs={max_epochs} ends before {place} begins, at {begin}: '
                f'shorten the warm-up too, --cfg-options {warmup}{place}.begin=E'
            )


def schedulers_in(place: str, node: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place and settings of every scheduler in a dict, a list of dicts, or a dict of either by optimizer."""
    if isinstance(node, list | tuple):
        for i, one in enumerate(node):
            yield from schedulers_in(f'{place}.{i}', one)
    elif isinstance(node, dict) and ('type' in node or not all(isinstance(one, dict | list) for one in node.values())):
        yield place, node
    elif isinstance(node, dict):
        for name, one in node.items():
            yield from schedulers_in(f'{place}.{name}', one)
