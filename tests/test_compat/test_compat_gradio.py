"""What is changed of Gradio: which files are deleted, and that a request meanwhile does no harm."""

import os
from types import SimpleNamespace

import pytest

from usp_mm.compat import gradio as patches

pytest.importorskip('gradio')


@pytest.fixture
def files(tmp_path):
    paths = {name: str(tmp_path / name) for name in ('old', 'shared', 'young', 'kept', 'late')}
    for path in paths.values():
        open(path, 'wb').close()
    return paths


def page_of(files, kept=()):
    sets = [{files['old'], files['shared'], files['young']}, {files['shared'], files['kept']}]
    return SimpleNamespace(blocks={0: SimpleNamespace(keep_in_cache=set(kept)), 1: object()}, temp_file_sets=sets)


def stamp(monkeypatch, files, young):
    """As if all files but `young` were 100 s old."""
    changed = {path: 0.0 if name not in young else 90.0 for name, path in files.items()}
    monkeypatch.setattr(patches.time, 'time', lambda: 100.0)
    lstat = os.lstat

    def aged(path):
        lstat(path)
        return SimpleNamespace(st_ctime=changed[path])

    monkeypatch.setattr(patches.os, 'lstat', aged)


def test_old_files_go_and_no_name_of_them_stays(files, monkeypatch):
    page = page_of(files, kept=[files['kept']])
    stamp(monkeypatch, files, young=['young'])
    patches._delete_files(page, 60)
    assert page.temp_file_sets == [{files['young']}, {files['kept']}]
    assert [name for name, path in files.items() if os.path.exists(path)] == ['young', 'kept', 'late']
    patches._delete_files(page, None)
    assert page.temp_file_sets == [set(), {files['kept']}] and os.path.exists(files['kept'])


def test_a_file_that_comes_meanwhile_stays(files, monkeypatch):
    page, remove = page_of(files), os.remove
    stamp(monkeypatch, files, young=[])

    def remove_while_one_comes(path):
        page.temp_file_sets[0].add(files['late'])
        remove(path)

    monkeypatch.setattr(patches.os, 'remove', remove_while_one_comes)
    patches._delete_files(page, 60)
    assert page.temp_file_sets == [{files['late']}, set()] and os.path.exists(files['late'])


def test_a_session_that_waits_is_kept_up_to_a_limit():
    waiting = {'a', 'b'}
    kept = patches.LatestSessions(2, 4, waiting.__contains__)
    for session in 'abcde':
        kept[session] = session
    assert list(kept) == ['a', 'b', 'd', 'e']
    kept['a'] = 'again'  # moved to the end
    assert list(kept) == ['b', 'e', 'a']
    waiting |= set('efg')
    kept['f'] = kept['g'] = ''
    assert list(kept) == ['e', 'a', 'f', 'g']  # all wait, and four are the most
    waiting.clear()
    kept['h'] = ''
    assert list(kept) == ['g', 'h']
