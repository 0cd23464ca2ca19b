"""Check the whole numbers that users give to the methods of models."""

from numbers import Integral
from typing import Any

#: The largest seed, see `usp_mm.functional.random.uniform`.
MAX_SEED = 2**56 - 1


def check_counts(**values: Any) -> None:
    """Raise a ValueError that names the first value that is not a whole number from 1 on."""
    for name, value in values.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f'{name}={value!r} must be a whole number, 1 or more')


def check_seed(seed: Any) -> None:
    """Raise a ValueError unless a seed is a whole number from 0 to 2^56 - 1."""
    if not is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f'seed={seed!r} must be a whole number from 0 to {MAX_SEED} (2^56 - 1)')


def is_whole(value: Any) -> bool:
    """Whether a value is an integer of Python or numpy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)
