"""Report which node the launchers of several nodes wait for, and end the wait after a limit.

torchrun waits in silence, and for up to twice its own limit. Here a launcher waits for node 0 before it starts torchrun, and a
thread reports the nodes that have not come while torchrun waits for them. The limits are those of a process that is missing,
`USP_MISSING_TOLD` and `USP_MISSING_LIMIT`.
"""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from usp_mm.runtime.heartbeat import ENDED_AFTER, LOGGED_AFTER, seconds_of

if TYPE_CHECKING:
    from argparse import Namespace

    from torch.distributed import TCPStore

#: Seconds between two looks, and that one look may take.
_INTERVAL, _LONGEST = 1.0, 5.0
#: torch's limit where there is none: about three years.
_NEVER = 10**8


@dataclass
class Nodes:
    """The nodes of one start of torchrun, of which this machine is one.

    Attributes:
        rank: The number of this node.
        number: Of all nodes.
        address: Host and port of node 0.
        run: torchrun's `--rdzv-id`.
        limit: Seconds that the launchers wait for each other; infinite for no limit.
        last_absent: The nodes that had not come when the thread of `telling` last looked.
    """

    rank: int
    number: int
    address: tuple[str, int]
    run: str
    limit: float
    last_absent: list[int] = field(default_factory=list)

    def wait_for_first(self) -> None:
        """Wait until node 0 takes connections, and tell once for whom after `USP_MISSING_TOLD` seconds.

        Raises:
            ValueError: It does not within the limit.
        """
        begun, logged_after = time.monotonic(), seconds_of(LOGGED_AFTER)
        while self.rank and (reason := self._refusal()):
            waited = time.monotonic() - begun
            if waited >= self.limit:
                raise ValueError(self.absence([0], waited, reason))
            if 0 < logged_after <= waited:
                self._say(self.absence([0], waited, reason))
                logged_after = 2 * waited
            time.sleep(min(_INTERVAL, self.limit / 10))

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """In the block a thread reports the nodes that have not come, until all have, or torch says so."""
        ended = threading.Event()
        threading.Thread(target=self._tell, args=(ended,), name='absent nodes', daemon=True).start()
        try:
            yield
        finally:
            ended.set()

    def absence(self, absent: list[int], waited: float, reason: str = '') -> str:
        """A line that says which nodes this one has waited for, for how many seconds, and what to do."""
        host, port = self.address
        names = ' and '.join(f'node {node}' for node in absent[:4]) + ' …' * (len(absent) > 4) or 'the other nodes'
        why = f' ({reason})' if reason else ''
        ranks = f'NODE_RANK={absent[0]} (--node-rank)' if absent else 'their NODE_RANK (--node-rank)'
        return (
            f'node {self.rank} of {self.number} has waited {waited:,.0f} s for {names} to meet at {host}:{port}{why}: start '
            f'the same command there with {ranks}, and check MASTER_ADDR, PORT, NNODES and the network between the nodes; '
            f'{ENDED_AFTER} sets how many seconds nodes wait'
        )

    def absent(self) -> list[int] | None:
        """The nodes whose launchers have not come to the store of node 0; none if torchrun itself says that all have.

        Returns:
            Their numbers, or None if the store does not answer.
        """
        try:
            self._store.set(_key(self.rank), socket.gethostname())
            if self._store.check([f'{self.run}/torchelastic/assigned_ranks/{self.rank}']):
                return []
            return [node for node in range(self.number) if not self._store.check([_key(node)])]
        except RuntimeError:  # torch's errors of the store
            self.__dict__.pop('_store', None)
            return None

    def _tell(self, ended: threading.Event) -> None:
        begun, logged_after = time.monotonic(), seconds_of(LOGGED_AFTER)
        interval = min(_INTERVAL, logged_after / 4 or _INTERVAL)
        while not ended.wait(interval):
            reason = self._refusal()
            absent = [0] if reason else self.absent()
            if absent == []:
                return
            self.last_absent = absent or self.last_absent
            waited = time.monotonic() - begun
            if 0 < logged_after <= waited and not ended.is_set():
                self._say(self.absence(self.last_absent, waited, reason or ''))
                logged_after = 2 * waited

    def _say(self, line: str) -> None:
        until = '' if self.limit == float('inf') else f', now {self.limit:,.0f}'
        sys.stderr.write(f'{line}{until}\n')
        sys.stderr.flush()

    def _refusal(self) -> str | None:
        """Why node 0 takes no connection; None if it does."""
        if '_store' in self.__dict__:
            return None
        try:
            socket.create_connection(self.address, timeout=_LONGEST).close()
        except OSError as error:
            return error.strerror or str(error)
        return None

    @cached_property
    def _store(self) -> 'TCPStore':
        from torch.distributed import TCPStore

        return TCPStore(*self.address, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=_LONGEST))


def nodes_of(args: 'Namespace') -> Nodes | None:
    """The nodes that torchrun's options describe, with the limit put into `args.rdzv_conf`; None for one node.

    A `timeout` of the options stays, and is then the limit. Another rendezvous than torchrun's default, such as
    `--rdzv-backend c10d`, is left to torchrun.

    Raises:
        ValueError: `USP_MISSING_TOLD`, `USP_MISSING_LIMIT` or the timeout is no number of seconds.
    """
    from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint
    from torch.distributed.run import get_rdzv_endpoint, parse_min_max_nnodes

    seconds_of(LOGGED_AFTER)
    number = parse_min_max_nnodes(args.nnodes)[1]
    if args.standalone or args.rdzv_backend != 'static' or number < 2:
        return None
    parts = [part.strip() for part in args.rdzv_conf.split(',') if part.strip()]
    given = [part.partition('=')[2] for part in parts if part.partition('=')[0].strip() == 'timeout']
    if given and not given[-1].strip().isdigit():
        raise ValueError(f"--rdzv-conf timeout='{given[-1]}' must be a whole number of seconds")
    limit = float(given[-1]) if given else seconds_of(ENDED_AFTER) or float('inf')
    if not given:
        args.rdzv_conf = ','.join([*parts, f'timeout={_NEVER if limit == float("inf") else max(1, round(limit))}'])
    address = parse_rendezvous_endpoint(get_rdzv_endpoint(args), 29500)
    return Nodes(args.node_rank, number, address, args.rdzv_id, limit)


def _key(node: int) -> str:
    return f'usp_mm/node/{node}'
