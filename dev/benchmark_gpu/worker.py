"""Sections in a process of their own, which may hang, run out of memory or crash without ending the others.

One process runs the sections one after another, as its imports take as long as some of them. It is ended with what it
started when a section takes too long, and ends itself after one that failed; another goes on with the next section.
"""

import contextlib
import logging
import multiprocessing
import os
import pkgutil
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from usp_mm.runtime.processes import child_environment, end_with_parent

from .report import Report, reason
from .scale import Scale
from .sections import Section

Event = tuple[str, Any]
#: Seconds that the process may take to start, and that must be left for a section to begin.
START, LEAST = 90.0, 10.0


def run_sections(sections: Mapping[str, Section], toy: bool, limit: float, take: Callable[[Event], Any]) -> None:
    """Run the sections, `limit` seconds at most in all, and hand each event of their reports to `take`."""
    end, left = time.monotonic() + limit, dict(sections)
    while left and end - time.monotonic() >= LEAST:
        with _process(left, toy) as (process, connection):
            _listen(process, connection, left, end, take)
    for name in left:
        take(_row(name, f'not begun: no time is left of {limit:.0f} s'))


def _row(name: str, status: str) -> Event:
    events: list[Event] = []
    Report(name, events.append).row('the section', status)
    return events[0]


@contextlib.contextmanager
def _process(sections: dict[str, Section], toy: bool) -> Iterator[tuple[Any, Connection]]:
    """A process that runs the sections, and the end of it and of all that it started."""
    context = multiprocessing.get_context('spawn')
    connection, other = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(other, sections, toy))
    with _environment({**child_environment(), **(dict(CUDA_VISIBLE_DEVICES='') if toy else {})}):
        process.start()
    other.close()
    try:
        yield process, connection
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()  # which is alone as long as it has no group of its own
        process.join()
        connection.close()


@contextlib.contextmanager
def _environment(env: dict[str, str]) -> Iterator[None]:
    """This process's environment, which one that is started inherits."""
    before = dict(os.environ)
    try:
        os.environ.update(env)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _listen(process: Any, connection: Connection, left: dict[str, Section], end: float, take: Callable[[Event], Any]) -> None:
    """Take what the process sends until it has done all, failed or is late; strike the sections that have begun."""
    name, start, until = '', time.monotonic(), time.monotonic() + START
    while True:
        if not connection.poll(max(0.0, min(until, end) - time.monotonic())):
            status = f'stopped after {time.monotonic() - start:.0f} s'
            break
        try:
            kind, content = connection.recv()
        except (EOFError, ConnectionError):
            process.join(5)
            status = _how_it_ended(process.exitcode)
            break
        if kind == 'begin':
            if end - time.monotonic() < LEAST:
                return
            name, start = content, time.monotonic()
            until = start + left.pop(name).seconds
        elif kind == 'done':
            return
        else:
            take((kind, content))
    if not name:  # it did not even start
        left.pop(name := next(iter(left)))
    take(_row(name, status))


def _how_it_ended(code: int | None) -> str:
    if code is not None and code < 0:
        memory = ', perhaps for the memory of the host' if -code == signal.SIGKILL else ''
        return f'its process was ended by {signal.Signals(-code).name}{memory}'
    return f'its process ended with exit code {code}'


def _work(connection: Connection, sections: dict[str, Section], toy: bool) -> None:
    """Run the sections until one fails."""
    os.setsid()
    end_with_parent()
    os.dup2(2, 1)  # what libraries print is no result
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    _start(toy)
    for name, section in sections.items():
        connection.send(('begin', name))
        report, start = Report(name, connection.send), time.monotonic()
        try:
            _clean()
            pkgutil.resolve_name(section.target)(report, Scale(toy))
        except Exception as error:
            traceback.print_exc()
            report.row('the section', reason(error))
            break
        connection.send(('seconds', {name: round(time.monotonic() - start, 1)}))
    connection.send(('done', None))


def _start(toy: bool) -> None:
    """What takes long to import; at toy sizes nothing is compiled, which would take most of the time."""
    import torch

    import usp_mm.models  # noqa: F401

    torch._dynamo.config.recompile_limit = 64  # a block is compiled for each size and batch
    torch._dynamo.config.automatic_dynamic_shapes = False  # one batch size must not slow down the next
    if toy:
        torch.compiler.set_stance('force_eager')


def _clean() -> None:
    """Memory and torch.compile as at the start."""
    import torch

    from .timing import clean

    torch.compiler.reset()
    clean()
