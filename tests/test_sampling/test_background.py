"""Calls in a thread: in order, all of them or up to the first error, whatever happens to the caller."""

import threading
import time

import pytest
from mmengine.logging import MMLogger

from usp_mm.fileio.atomic import write_whole
from usp_mm.sampling.background import BackgroundCalls


def write(path, content):
    time.sleep(0.002)
    with write_whole(path) as file:
        file.write(content)


def test_calls_are_made_in_order_in_another_thread_and_all_of_them():
    seen = []
    with BackgroundCalls() as background:
        for i in range(20):
            background(lambda i: seen.append((i, threading.current_thread() is threading.main_thread())), i)
    assert seen == [(i, False) for i in range(20)]


def test_the_caller_goes_on_but_no_further_than_the_queue():
    begun, go = [], threading.Event()
    with BackgroundCalls(waiting=2) as background:
        started = threading.Event()
        background(lambda: (started.set(), go.wait(10)))
        assert started.wait(10)
        caller = threading.Thread(target=lambda: [(background(begun.append, i), begun.append(f'asked {i}')) for i in range(3)])
        caller.start()
        caller.join(0.1)
        assert caller.is_alive() and begun == ['asked 0', 'asked 1']
        go.set()
        caller.join(10)
    assert [i for i in begun if isinstance(i, int)] == [0, 1, 2]


def write_in_background(paths, error=None):
    """Write them all, as far as that goes, then raise."""
    asked = []
    try:
        with BackgroundCalls() as background:
            for path in paths:
                background(write, path, path.name.encode() * 1000)
                asked.append(path)
            if error is not None:
                raise error
    finally:
        paths[:] = asked


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize('interruption', [KeyboardInterrupt, ValueError])
def test_files_are_whole_when_the_caller_is_interrupted(tmp_path, interruption):
    with pytest.raises(interruption):
        write_in_background([tmp_path / f'{i}' for i in range(5)], interruption())
    assert contents(tmp_path) == {f'{i}': f'{i}'.encode() * 1000 for i in range(5)}


def test_an_error_is_raised_at_the_next_call_and_what_follows_is_not_made(tmp_path):
    paths = [tmp_path / 'first', tmp_path / 'nowhere' / 'second', *(tmp_path / f'later {i}' for i in range(100))]
    with pytest.raises(FileNotFoundError, match='nowhere'):
        write_in_background(paths)
    assert list(contents(tmp_path)) == ['first'] and 2 <= len(paths) <= 6


def test_an_error_in_the_last_call_is_raised_at_the_end(tmp_path):
    paths = [tmp_path / 'first', tmp_path / 'nowhere' / 'second']
    with pytest.raises(FileNotFoundError, match='nowhere'):
        write_in_background(paths)
    assert list(contents(tmp_path)) == ['first'] and 'background calls' not in [t.name for t in threading.enumerate()]


def test_an_error_behind_an_interruption_is_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'error', told.append)
    with pytest.raises(KeyboardInterrupt):
        write_in_background([tmp_path / 'nowhere' / 'file'], KeyboardInterrupt())
    assert len(told) == 1 and told[0].startswith('and while that happened, FileNotFoundError: ')
