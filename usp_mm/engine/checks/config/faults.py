"""Collect the faults of a config's parts, so that one error has them all."""

from collections.abc import Iterator
from contextlib import contextmanager


class Faults:
    """The errors of parts that are checked one after the other."""

    def __init__(self) -> None:
        self._told: list[str] = []

    @contextmanager
    def of_a_part(self) -> Iterator[None]:
        """Keep the ValueError of a part for later."""
        try:
            yield
        except ValueError as error:
            self._told.append(str(error))

    def tell(self) -> None:
        """Raise a ValueError with a line for each fault, if there are any."""
        if self._told:
            raise ValueError('\n'.join(self._told))
