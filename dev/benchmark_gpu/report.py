"""What a section finds, sent on as it is found, so that nothing is lost when the section does not end."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

#: Of a row, in this order; what a row does not have is None.
COLUMNS = (
    'section', 'what', 'status', 'batch', 'ms', 'images/s', '× official', 'TFLOP/s', 'MFU %', 'peak GiB', 'host ms', 'kernels',
    'first s',
)  # fmt: skip
OK = 'ok'


class Report:
    """Rows, checks and facts of one section.

    Args:
        section: its name.
        send: takes ('row' | 'add' | 'check' | 'fact', dict).
    """

    def __init__(self, section: str, send: Callable[[tuple[str, Any]], Any]) -> None:
        self.section, self.send = section, send
        self.wrong: list[str] = []

    def row(self, what: str, status: str = OK, peers: str | None = None, **columns: Any) -> None:
        """A row of the table; rows of the same `peers` are compared with the official-style one among them."""
        given = dict(section=self.section, what=what, status=status, **columns)
        assert given.keys() <= set(COLUMNS), given.keys()
        self.send(('row', {**{column: given.get(column) for column in COLUMNS}, 'peers': peers}))

    def speed(self, what: str, batch: int, ms: float, flops: float | None = None, **columns: Any) -> None:
        """A row of `batch` images that took so long, and of `flops` operations an image."""
        images = 1000 * batch / ms
        speeds = {'images/s': images, 'TFLOP/s': flops and images * flops / 1e12}
        self.row(what, batch=batch, ms=ms, **speeds, **columns)

    def add(self, **columns: Any) -> None:
        """More columns of the last row: what may fail, or take the section's time, without losing the row."""
        assert columns.keys() <= set(COLUMNS), columns.keys()
        self.send(('add', columns))

    def check(self, name: str, error: float, limit: float) -> None:
        """A number that must be `limit` at most; NaN is not."""
        ok = error <= limit
        if not ok:
            self.wrong.append(name)
        self.send(('check', dict(section=self.section, name=name, error=error, limit=limit, ok=ok)))

    def close(self, name: str, found: 'Tensor', wanted: 'Tensor', limit: float) -> None:
        """A check of the norm of the difference, relative to that of what is wanted."""
        found, wanted = (x.detach().double().cpu() for x in (found, wanted))
        self.check(name, float((found - wanted).norm() / wanted.norm().clamp_min(1e-12)), limit)

    def fact(self, name: str, value: Any) -> None:
        self.send(('fact', {name: value}))

    @contextmanager
    def attempt(self, what: str, **columns: Any) -> Iterator[None]:
        """A row that may fail, out of memory say: then it shows the reason, and the section goes on."""
        try:
            yield
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            self.row(what, reason(error), **columns)


def reason(error: BaseException) -> str:
    """One line."""
    lines = str(error).strip().splitlines() or ['']
    return f'{type(error).__name__}: {lines[0][:200]}'.rstrip(': ')
