"""torchrun, with the tool's own line as the last on the screen: `python -m usp_mm.runtime.torchrun --nproc-per-node 2 tools/…`.

The options are torchrun's. Only the end differs: an error that a tool explains, or Ctrl-C, is shown as one line for all
processes instead of a ChildFailedError or SignalException with tracebacks. The exit code is that of the process that failed
first, or 128 plus the signal's number after a signal.
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from usp_mm.runtime.absent_nodes import Nodes, nodes_of
from usp_mm.runtime.processes import PARENT, PREEMPTED, SIGNALLED, Stopped, how_it_ended, read_reason

if TYPE_CHECKING:
    from argparse import Namespace

    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

#: Seconds that processes have to end after a signal before they are killed, in which a training saves a checkpoint.
_PATIENCE = 60
#: Loggers that report processes which were ended because another one failed.
_NOISE = ('torch.distributed.elastic.multiprocessing.api', 'torch.distributed.elastic.agent.server.api')
#: Signals that show a process's own failure: the agent does not send them when another process fails.
_CAUSES = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
#: Exit code of argparse, which has already printed the mistake.
_USAGE = 2
#: Asks trainings to save a checkpoint and end, as SIGTERM does; the elastic agent passes it on.
_ALSO_HANDLED = 'SIGUSR1'


def launch(arguments: Sequence[str] | None = None) -> int:
    """Start processes as torchrun does, wait for them, and return an exit code.

    Args:
        arguments: Options of torchrun and the tool; those of the command line if None.
    """
    try:
        line, code = _run(arguments)
    except KeyboardInterrupt as error:  # before the first process
        line, code = how_it_ended(error)
    except (ValueError, OSError) as error:  # an option's value, a port that is taken
        if os.environ.get('USP_TRACEBACK'):
            raise
        line, code = f'error: {error}  (USP_TRACEBACK=1 shows where)', 1
    if line:
        sys.stderr.write(f'{line}\n')
    return code


def _run(arguments: Sequence[str] | None) -> tuple[str | None, int]:
    """Run the processes; return the line to show, or None, and the exit code."""
    from torch.distributed import DistError, run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    args = run.parse_args(arguments)
    _prepare(args)
    nodes = nodes_of(args)
    begun, started = time.monotonic(), time.time()
    with _error_files(args) as folder:
        try:
            if nodes is None:
                run.run(args)
            else:
                nodes.wait_for_first()
                with nodes.telling():
                    run.run(args)
        except ChildFailedError as error:
            return _explain(error.failures)
        except SignalException as error:
            return _after_signal(error.sigval, folder, started)
        except DistError as error:  # no ChildFailedError: of the launchers' own connection
            if os.environ.get('USP_TRACEBACK'):
                raise
            return f'error: {_unconnected(args, error, nodes, time.monotonic() - begun)}  (USP_TRACEBACK=1 shows where)', 1
    return None, 0


@contextmanager
def _error_files(args: 'Namespace') -> Iterator[Path | None]:
    """The folder in which the processes' error files are, if it is known.

    torchrun leaves one for each run in the system's temporary folder. Here it is removed, unless it holds the processes'
    output.
    """
    if args.log_dir or (args.redirects, args.tee) != ('0', '0'):
        yield Path(args.log_dir) if args.log_dir else None
        return
    with TemporaryDirectory(prefix='torchelastic_', ignore_cleanup_errors=True) as folder:
        args.log_dir = folder
        yield Path(folder)


def _after_signal(number: int, folder: Path | None, started: float) -> tuple[str, int]:
    """The line and the exit code after a signal; the line is that of the first process, which knows what is saved.

    Args:
        folder: Where error files are, RUN/attempt_N/RANK/error.json; those from before `started`, in s, are of other runs.
    """
    line, code = how_it_ended(Stopped(number))
    files = [file for file in (folder.rglob('error.json') if folder else ()) if file.stat().st_mtime >= started]
    for file in sorted(files, key=lambda file: file.parent.name):
        try:
            content = json.loads(file.read_text())
        except ValueError:  # its process was ended while it wrote
            continue
        reason = read_reason(content) if isinstance(content, dict) else None
        if reason is not None and reason.message.startswith(line):
            return reason.message, code
    return line, code


def _prepare(args: 'Namespace') -> None:
    """Set the environment that the processes inherit, and silence the agent's loggers."""
    from torch.distributed.run import determine_local_world_size

    os.environ[PARENT] = str(os.getpid())
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', str(_PATIENCE))
    if determine_local_world_size(args.nproc_per_node) > 1:
        os.environ.setdefault('OMP_NUM_THREADS', '1')  # as torchrun does with a warning
    if 'OMP_NUM_THREADS' in os.environ:  # MKL's own rule, which MMEngine would replace by 1, with a warning in each process
        os.environ.setdefault('MKL_NUM_THREADS', os.environ['OMP_NUM_THREADS'])
    handled = getattr(args, 'signals_to_handle', None)
    if handled and _ALSO_HANDLED not in handled:
        handled = args.signals_to_handle = f'{handled},{_ALSO_HANDLED}'
    if handled and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup: a closed terminal ends nothing
        names = [name for name in handled.split(',') if name.strip() != 'SIGHUP']
        args.signals_to_handle = ','.join(names)
    if 'LOGLEVEL' not in os.environ and not args.max_restarts:
        for name in _NOISE:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _unconnected(args: 'Namespace', error: Exception, nodes: Nodes | None, seconds: float) -> str:
    """Why the launchers of the nodes do not find each other, and what to do."""
    reason = str(error).splitlines()[0]
    address = args.rdzv_endpoint or f'{args.master_addr}:{args.master_port}'
    if 'EADDRINUSE' in reason:
        return (
            f'port {address.rpartition(":")[2]} of this machine is taken: on one node leave PORT out to take a free one, on '
            'several set another PORT on each'
        )
    if nodes is not None:
        return nodes.absence(nodes.last_absent, seconds, reason.rstrip('.'))
    return (
        f'the launcher of node 0 at {address} cannot be reached ({reason}): start it too, and check MASTER_ADDR, PORT, NNODES '
        'and the network between the nodes'
    )


def _explain(failures: 'dict[int, ProcessFailure]') -> tuple[str | None, int]:
    """Return the line to show and the exit code, from the process whose failure caused the others'."""
    rank = min(failures, key=lambda rank: _order(failures[rank]))
    reason, code = read_reason(failures[rank].error_file_data), failures[rank].exitcode
    if reason:
        return reason.message, max(code, 1)
    if code < 0:
        return f'error: process {rank} was ended by {signal.Signals(-code).name}', SIGNALLED - code
    return None if code in (_USAGE, PREEMPTED) else f'error: process {rank} ended with exit code {code}', code


def _order(failure: 'ProcessFailure') -> tuple[int, float]:
    """Sort key that puts causes first: an exception may come from a closed connection, and SIGTERM from the agent."""
    reason = read_reason(failure.error_file_data)
    if reason:
        return (0 if reason.foreseen else 2), reason.time
    if -failure.exitcode in _CAUSES:
        return 1, failure.timestamp
    return (4 if failure.exitcode == -signal.SIGTERM else 3), failure.timestamp


if __name__ == '__main__':
    sys.exit(launch())
