"""What a process's memory holds, for dev/soak.py: of this process, or of a tool that is asked over a socket.

python dev/soak_memory.py SOCKET TOOL [ARGUMENT …] runs a tool of this repository and answers at a Unix socket. With SOAK_KEPT
in the environment, `usp app` deletes pictures after so many seconds in place of an hour.
"""

import ctypes
import gc
import json
import os
import runpy
import socket
import sys
import threading
import tracemalloc
from pathlib import Path

#: Of tracemalloc's growths, the largest ones.
_TOLD = 40


class _Mallinfo2(ctypes.Structure):
    _names = ('arena', 'ordblks', 'smblks', 'hblks', 'hblkhd', 'usmblks', 'fsmblks', 'uordblks', 'fordblks', 'keepcost')
    _fields_ = tuple((name, ctypes.c_size_t) for name in _names)


def allocated() -> int:
    """Bytes that malloc has given out and not got back (glibc), which resident memory exceeds by what malloc keeps."""
    mallinfo2 = ctypes.CDLL(None).mallinfo2
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def ask(path: Path, what: str = 'usage') -> dict:
    """Ask a tool that `main` runs, after a full garbage collection in it.

    Returns:
        'allocated' and 'blocks' as in `soak.Measures`; with `what='growth'` the lines of code whose living allocations grew
        most since this was first asked, each with the bytes and the number. From then on tracemalloc slows the tool down.
    """
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(300)
        client.connect(str(path))
        client.sendall(f'{what}\n'.encode())
        return json.loads(client.makefile().read())


def _answer(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile('r') as lines:
            what = lines.readline().strip()
            gc.collect()
            found = _growth() if what == 'growth' else dict(allocated=allocated(), blocks=sys.getallocatedblocks())
            connection.sendall(json.dumps(found).encode())


def _growth() -> dict[str, list[int]]:
    if not tracemalloc.is_tracing():
        tracemalloc.start()
        return {}
    found = tracemalloc.take_snapshot().statistics('lineno')[:_TOLD]
    return {str(one.traceback): [one.size, one.count] for one in found}


def main() -> None:
    path, tool, *words = sys.argv[1:]
    Path(path).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen()
    threading.Thread(target=_answer, args=(server,), daemon=True).start()
    if kept := os.environ.get('SOAK_KEPT'):
        from usp_mm.app import build

        build._KEPT = int(kept)
    sys.argv = [tool, *words]
    sys.path[0] = os.path.dirname(tool)
    runpy.run_path(tool, run_name='__main__')


if __name__ == '__main__':
    main()
