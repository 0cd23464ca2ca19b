"""Explain errors of building: say where in the config the class stands whose arguments Python refuses."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config

#: Python's own words for arguments that a call lacks or has too many of; anything else is a bug, and keeps its traceback.
_REFUSED = re.compile(r'(?:\w+\.)*?(\w+)(?:\.__init__)?\(\) (?:missing \d+ required|got an unexpected|got multiple values)')


@contextmanager
def explain_arguments(cfg: Config) -> Iterator[None]:
    """Turn Python's TypeError for wrong arguments into a ValueError that says where in the config the class stands."""
    try:
        yield
    except TypeError as error:
        found = _REFUSED.match(str(error))
        places = list(places_of(cfg._cfg_dict, found[1], '')) if found else []
        if not places:
            raise
        raise ValueError(f'{" or ".join(places)}: {error}') from error


def places_of(node: Any, name: str, path: str) -> Iterator[str]:
    """Yield every place in a config where the type `name` is used."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    if isinstance(node, dict) and str(node.get('type')).split('.')[-1] == name:
        yield path
    for key, value in items:
        yield from places_of(value, name, f'{path}.{key}' if path else str(key))
