"""One process at a time holds a lock, its file stays, and nothing else is touched."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.held_lock import held_elsewhere

from usp_mm.fileio.locks import holder, locked


def test_who_holds_it_is_told(tmp_path):
    path = tmp_path / 'x.lock'
    with held_elsewhere(path) as process:
        assert holder(path) == dict(host=os.uname().nodename, pid=process.pid, start=holder(path)['start'])
        with (
            pytest.raises(ValueError, match=rf'^taken \(process {process.pid} on \S+, since 20\S+ \S+ UTC\)$'),
            locked(path, 'taken'),
        ):
            pass
    assert path.read_bytes() == b'' and holder(path) is None


def test_it_ends_with_an_error_and_with_its_process(tmp_path):
    path = tmp_path / 'x.lock'
    with pytest.raises(KeyError), locked(path, 'taken'):
        raise KeyError
    with held_elsewhere(path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        with locked(path, 'taken'):
            assert holder(path)['pid'] == os.getpid()


def test_a_link_is_refused_and_its_target_stays(tmp_path):
    (tmp_path / 'precious').write_text('mine')
    (tmp_path / 'x.lock').symlink_to('precious')
    with pytest.raises(OSError, match=r'x\.lock'), locked(tmp_path / 'x.lock', 'taken'):
        pass
    assert (tmp_path / 'precious').read_text() == 'mine'


def test_a_file_that_is_no_lock_keeps_its_content(tmp_path):
    (tmp_path / 'x.lock').write_text('mine')
    with locked(tmp_path / 'x.lock', 'taken'):
        pass
    assert (tmp_path / 'x.lock').read_text() == 'mine'


CONTENDER = """
import sys, time
from pathlib import Path
from usp_mm.fileio.locks import locked

folder, held = Path(sys.argv[1]), 0
end = time.monotonic() + 1.0
while time.monotonic() < end:
    try:
        with locked(folder / 'x.lock', 'taken'):
            (folder / 'inside').open('xb').close()  # fails if another process is within
            (folder / 'inside').unlink()
            held += 1
    except ValueError:
        pass
print(held)
"""


def test_two_processes_are_never_within_together(tmp_path):
    command = [sys.executable, '-c', CONTENDER, tmp_path]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate(timeout=60) for process in processes]
    assert [error for _, error in told] == ['', ''] and all(int(held) > 10 for held, _ in told)


def test_a_child_does_not_keep_it(tmp_path):
    """Loader processes may outlive a killed run for some seconds."""
    path = tmp_path / 'x.lock'
    hold = (
        'import os, sys, time\nfrom pathlib import Path\nfrom usp_mm.fileio.locks import locked\n'
        "with locked(Path(sys.argv[1]), 'taken'):\n"
        '    child = os.fork()\n    if child == 0:\n        time.sleep(60)\n    print(child, flush=True)\n    time.sleep(60)\n'
    )
    with subprocess.Popen([sys.executable, '-c', hold, path], stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        try:
            process.kill()
            process.wait()
            time.sleep(0.1)
            with locked(path, 'taken'):
                assert os.path.exists(f'/proc/{child}')
        finally:
            os.kill(child, signal.SIGKILL)
