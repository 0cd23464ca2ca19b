"""Report which one of several processes has stopped, and end the others after a limit instead of letting them wait for it.

Every few seconds a thread of each process writes to torch's TCPStore how far the process is, and reads how far the others are.
The main thread only adds to a counter. Clocks of different machines are never compared.
"""

import atexit
import contextlib
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from usp_mm.runtime.processes import report_to_launcher

if TYPE_CHECKING:
    from torch.distributed import TCPStore

#: Environment variables: seconds after which a process that has stopped is named, and after which the others end; 0 is never.
LOGGED_AFTER, ENDED_AFTER = 'USP_MISSING_TOLD', 'USP_MISSING_LIMIT'
_DEFAULTS = {LOGGED_AFTER: 60.0, ENDED_AFTER: 1800.0}
_INTERVAL = 5.0
_ENDED = 'ended'
#: File of torch in which a process waits for others.
_WAITS_IN = os.path.join('torch', 'distributed', 'distributed_c10d.py')


class Beat(NamedTuple):
    """What a process reports of itself.

    Attributes:
        number: Counts the beats.
        done: Counts what was passed to `Heartbeat.advance`.
        waits: Whether the main thread is in one of torch's collectives.
        host: Name of the machine.
        where: Innermost Python function of the main thread, as 'NAME (FILE:LINE)'.
    """

    number: int
    done: int
    waits: bool
    host: str
    where: str


@dataclass
class Watch:
    """Judge from the processes' beats which have stopped. The times are seconds of one clock.

    Args:
        rank: The process that judges.
        world_size: Number of processes.
        started: The time when the watch began.
    """

    rank: int
    world_size: int
    started: float
    beats: dict[int, Beat] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)
    heard: float = 0.0
    _changed: dict[int, float] = field(default_factory=dict)
    _advanced: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.heard = self.started

    def hear(self, texts: Sequence[str | None], now: float) -> None:
        """Take the newest beats of all processes, None for one that has not begun."""
        self.heard = now
        for rank, text in enumerate(texts):
            if text == _ENDED:
                self.ended.add(rank)
            elif text is not None:
                self._take(rank, Beat(*json.loads(text)), now)

    def _take(self, rank: int, beat: Beat, now: float) -> None:
        before = self.beats.get(rank)
        self.beats[rank] = beat
        if before is None or beat.number != before.number:
            self._changed[rank] = now
        if before is None or (beat.done, beat.waits) != (before.done, before.waits):
            self._advanced[rank] = now

    def missing(self, now: float) -> tuple[list[int], float]:
        """The processes without a beat for the longest time, apart from those that have ended, and that time."""
        silent = {
            rank: now - self._changed.get(rank, self.started) for rank in range(self.world_size) if rank not in self.ended
        }
        silent.pop(self.rank, None)
        longest = max(silent.values(), default=0.0)
        return [rank for rank, seconds in silent.items() if longest - seconds < 2 * _INTERVAL], longest

    def behind(self, now: float) -> tuple[list[int], float]:
        """The processes that others wait for, though they beat, and for how long those that wait have done so."""
        there = {rank: beat for rank, beat in self.beats.items() if rank not in self.ended}
        most = max((beat.done for beat in there.values()), default=0)
        ahead = [rank for rank, beat in there.items() if beat.done == most]
        late = [rank for rank in there if rank not in ahead]
        if not late and not all(there[rank].waits for rank in ahead):
            late = [rank for rank in ahead if not there[rank].waits]
            ahead = [rank for rank in ahead if there[rank].waits]
        if not late or not ahead:
            return [], 0.0
        return late, now - max(self._advanced[rank] for rank in (*late, *ahead))

    def takes_steps(self) -> bool:
        """Whether the processes count steps, as in a training; in the other tools one may work for days while others wait."""
        return any(beat.done for beat in self.beats.values())

    def excuse(self, now: float) -> None:
        """Start all times anew, after this process itself stood still, as a suspended job does."""
        self.started = self.heard = now
        self._changed = dict.fromkeys(self._changed, now)
        self._advanced = dict.fromkeys(self._advanced, now)

    def names(self, ranks: Sequence[int]) -> str:
        """'process 3 (on b, step 7, last seen in read (file.py:7))', or several of them, at most four."""
        names = [self._name(rank) for rank in ranks[:4]] + ['…'] * (len(ranks) > 4)
        return ', '.join(names)

    def _name(self, rank: int) -> str:
        beat = self.beats.get(rank)
        if beat is None:
            return f'process {rank} (not heard of yet)'
        steps = f', step {beat.done}' if beat.done else ''
        return f'process {rank} (on {beat.host}{steps}, last seen in {beat.where})'


class Heartbeat:
    """The threads of one process that beat and watch. Use `start_heartbeat`.

    Args:
        rank, world_size: Of this process, and of all.
        address: Host and port of torch's TCPStore.
        run: Distinguishes restarts that share a store.
    """

    def __init__(self, rank: int, world_size: int, address: tuple[str, int], run: str) -> None:
        self.rank, self.world_size, self.address = rank, world_size, address
        self.logged_after, self.ended_after = seconds_of(LOGGED_AFTER), seconds_of(ENDED_AFTER)
        self.interval = min([_INTERVAL, *(limit / 4 for limit in (self.logged_after, self.ended_after) if limit)])
        self._keys = [f'usp_heartbeat/{run}/{rank}' for rank in range(world_size)]
        self._watch = Watch(rank, world_size, time.monotonic())
        self._main, self._host = threading.main_thread().ident, socket.gethostname()
        self._done, self._number = 0, 0
        self._stopped, self._next_line = threading.Event(), self.logged_after

    def start(self) -> None:
        """Start the threads, which end with the process, and note at its regular end that nobody has to wait for it."""
        for target in (self._beat, self._judge):
            threading.Thread(target=target, name='heartbeat', daemon=True).start()
        atexit.register(self.stop)

    def advance(self) -> None:
        """Count a step that all processes take; called by the main thread, and as cheap as an addition."""
        self._done += 1

    def stop(self) -> None:
        """End the threads, and report to the other processes that this one has ended, if the store still answers."""
        if not self._stopped.is_set():
            self._stopped.set()
            last = threading.Thread(target=self._say_ended, daemon=True)
            last.start()
            last.join(2)

    def _say_ended(self) -> None:
        with contextlib.suppress(RuntimeError, ValueError):  # torch's errors of the store: it went first
            self._store.set(self._keys[self.rank], _ENDED)

    @cached_property
    def _store(self) -> 'TCPStore':
        """A connection of its own, since a collective that waits holds the other one."""
        from torch.distributed import TCPStore

        return TCPStore(
            *self.address, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=max(self.interval, 5))
        )

    def _beat(self) -> None:
        while not self._stopped.is_set():
            try:
                self._store.set(self._keys[self.rank], json.dumps(self._own()))
                self._watch.hear(self._read(), time.monotonic())
            except (RuntimeError, ValueError):  # the store is not there yet, or no longer; `_judge` reports for how long
                self.__dict__.pop('_store', None)
            self._stopped.wait(self.interval)

    def _read(self) -> list[str | None]:
        if self._store.check(self._keys):
            return [bytes(text).decode() for text in self._store.multi_get(self._keys)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in self._keys]

    def _own(self) -> Beat:
        self._number += 1
        frame = innermost = sys._current_frames()[self._main or 0]
        waits = False
        while frame is not None and not waits:
            waits, frame = frame.f_code.co_filename.endswith(_WAITS_IN), frame.f_back  # type: ignore[assignment]
        code = innermost.f_code
        where = f'{code.co_name} ({os.path.basename(code.co_filename)}:{innermost.f_lineno})'
        return Beat(self._number, self._done, waits, self._host, where)

    def _judge(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(self.interval):
            now = time.monotonic()
            if now - before > 4 * self.interval + 1:
                self._watch.excuse(now)
            self._check(now)
            before = now

    def _check(self, now: float) -> None:
        """Say once who is missing, again after twice the time, and end the process after the limit."""
        line, seconds, ends = self._finding(now)
        if seconds < self.logged_after or not self.logged_after:
            self._next_line = self.logged_after
        elif seconds >= self._next_line:
            self._next_line = 2 * seconds
            until = f'; this ends after {self.ended_after:,.0f} s ({ENDED_AFTER})' if ends and self.ended_after else ''
            if self._speaks(now):
                self._say(f'{line} for {seconds:,.0f} s{until}')
        if ends and 0 < self.ended_after <= seconds and not self._stopped.is_set():
            self._end(
                f'error: {line} for {seconds:,.0f} s: see what that machine does; {ENDED_AFTER} sets how long others wait'
            )

    def _finding(self, now: float) -> tuple[str, float, bool]:
        """What is wrong, for how many seconds, and whether that may end the process; 0 seconds if nothing is."""
        watch, silent = self._watch, now - self._watch.heard
        if silent >= self.logged_after and 0 not in watch.ended:
            return (
                f'process {self.rank} on {self._host} has not reached the store at {":".join(map(str, self.address))}',
                silent,
                True,
            )
        ranks, seconds = watch.missing(now)
        if seconds >= self.logged_after:
            return f'no sign of {watch.names(ranks)}', seconds, True
        ranks, seconds = watch.behind(now)
        return f'the other processes wait for {watch.names(ranks)}', seconds, watch.takes_steps()

    def _speaks(self, now: float) -> bool:
        """Whether this is the first of the processes that can be heard; where none can, each speaks for itself."""
        ranks, seconds = self._watch.missing(now)
        gone = set(ranks) if seconds >= self.logged_after else set()
        if now - self._watch.heard >= self.logged_after:
            return True
        return self.rank == min(set(range(self.world_size)) - gone - self._watch.ended)

    def _say(self, line: str) -> None:
        from mmengine.logging import MMLogger

        MMLogger.get_current_instance().log(logging.ERROR if self.rank else logging.WARNING, line)  # others log errors alone

    def _end(self, line: str) -> None:
        """End the process from this thread, since the main one waits in C++ code and hears no signal."""
        if not report_to_launcher(line):
            sys.stderr.write(f'{line}\n')
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


_started: list[Heartbeat] = []


def start_heartbeat() -> Heartbeat | None:
    """Start the heartbeat of this process once, if the environment says that it is one of several, as torchrun's does.

    May be called before the process group exists; it is then reported too if a process does not come.

    Returns:
        The heartbeat; None for a process that is alone, or does not know its group yet.

    Raises:
        ValueError: `USP_MISSING_TOLD` or `USP_MISSING_LIMIT` is no number of seconds.
    """
    names = ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    if _started or not all(os.environ.get(name) for name in names):
        return _started[0] if _started else None
    rank, world_size, host, port = (os.environ[name] for name in names)
    if int(world_size) < 2:
        return None
    run = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    heartbeat = Heartbeat(int(rank), int(world_size), (host, int(port)), run)
    heartbeat.start()
    _started.append(heartbeat)
    return heartbeat


def end_as_failed() -> None:
    """Let this process's heartbeat, if there is one, not report a regular end: the others then learn that it is missing."""
    for heartbeat in _started:
        atexit.unregister(heartbeat.stop)


def seconds_of(variable: str) -> float:
    """The value of one of the two environment variables, or its default."""
    text = os.environ.get(variable)
    try:
        value = _DEFAULTS[variable] if text is None else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float('inf'):
        raise ValueError(f"{variable}='{text}' must be a number of seconds, 0 for never")
    return value
