"""What is written appears whole or not at all, whoever writes at the same time and whoever is killed."""

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from usp_mm.fileio import atomic
from usp_mm.fileio.atomic import read_json, remove_leftovers, restore_folder, write_folder, write_json, write_whole


def test_json_objects(tmp_path):
    file = tmp_path / 'facts.json'
    assert read_json(file) is None
    write_json(file, dict(a=[1, None]))
    assert read_json(file) == dict(a=[1, None])
    for text, told in (('{"a": ', r'.*'), ('\xff', r'.*'), ('[' * 100_000, '.*recursion.*')):
        file.write_text(text, encoding='latin1')
        with pytest.raises(ValueError, match=rf"facts\.json' is no JSON file \({told}\): delete it"):
            read_json(file)
    file.write_text('[1]')
    with pytest.raises(ValueError, match=r"facts\.json' holds a list, expected values by name: delete it"):
        read_json(file)


WRITER = """
import sys
from pathlib import Path
from usp_mm.fileio.atomic import write_whole

for i in range(int(sys.argv[3])):
    with write_whole(Path(sys.argv[1])) as file:
        file.write(sys.argv[2].encode() * 50_000)
        file.write(sys.argv[2].encode() * 50_000)
"""


def test_two_writers_and_readers_that_see_whole_files(tmp_path):
    path = tmp_path / 'kept.bin'
    path.write_bytes(b'a' * 100_000)
    command = [sys.executable, '-c', WRITER, path]
    writers = [subprocess.Popen([*command, letter, '100'], stderr=subprocess.PIPE) for letter in 'ab']
    seen, torn = set(), 0
    while any(writer.poll() is None for writer in writers):
        content = path.read_bytes()
        torn += len(content) != 100_000 or len(set(content)) != 1
        seen.add(content[:1])
    assert [writer.communicate()[1] for writer in writers] == [b'', b'']
    assert torn == 0 and seen == {b'a', b'b'}
    assert [entry.name for entry in tmp_path.iterdir()] == ['kept.bin']


def test_an_error_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / 'x.json'
    write_json(path, {})
    with pytest.raises(TypeError, match='bytes'), write_whole(path) as file:
        file.writelines([b'half', 'text'])
    assert path.read_text() == '{}\n' and list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_its_target_stays(tmp_path):
    (tmp_path / 'precious').write_text('mine')
    (tmp_path / 'x.json').symlink_to('precious')
    write_json(tmp_path / 'x.json', {})
    assert (tmp_path / 'precious').read_text() == 'mine' and not (tmp_path / 'x.json').is_symlink()


@pytest.mark.parametrize('mask', [0o022, 0o027, 0o077, 0o002])
def test_modes_follow_from_the_umask(mask, tmp_path):
    before = os.umask(mask)
    try:
        write_json(tmp_path / 'x.json', {})
        with write_folder(tmp_path / 'folder') as folder:
            (folder / 'inner').mkdir(mode=0o700)
            (folder / 'inner' / 'weights').touch(mode=0o600)
    finally:
        os.umask(before)
    found = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob('*')}
    file, folder = 0o666 & ~mask, 0o777 & ~mask
    assert found == {'x.json': file, 'folder': folder, 'inner': folder, 'weights': file}


KILLED = """
import os, signal, sys
from pathlib import Path
from usp_mm.fileio import atomic

path = Path(sys.argv[1])
if sys.argv[2] == 'file':
    with atomic.write_whole(path) as file:
        file.write(b'half')
        os.kill(os.getpid(), signal.SIGKILL)
replace = os.replace
if sys.argv[2] == 'aside':  # the old folder is moved away, the new one is not there yet
    os.replace = lambda old, new: os.kill(os.getpid(), signal.SIGKILL) if Path(new) == path else replace(old, new)
if sys.argv[2] == 'kept':
    atomic.shutil.rmtree = lambda path, **_: os.kill(os.getpid(), signal.SIGKILL) if '.old' in str(path) else None
with atomic.write_folder(path, replace=True) as folder:
    (folder / 'new').touch()
    if sys.argv[2] == 'folder':
        os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(path: Path, moment: str) -> None:
    assert subprocess.run([sys.executable, '-c', KILLED, path, moment]).returncode == -9


def test_the_next_write_removes_what_killed_ones_left(tmp_path, monkeypatch):
    for moment in ('file', 'folder'):
        kill_while_writing(tmp_path / moment, moment)
    (tmp_path / '.notes.tmp').touch()  # not ours
    kinds = sorted(path.name.split('.')[1] for path in tmp_path.iterdir())
    assert kinds == ['folder', 'notes']  # the second run has removed what the first one left
    monkeypatch.setattr(atomic, '_TIDIED', set())
    write_json(tmp_path / 'x.json', {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ['.notes.tmp', 'x.json']


def test_what_may_still_be_written_stays(tmp_path):
    machine, other, ours = atomic._machine(), 'ffffffff', os.getpid()
    old = time.time() - 3 * 3600
    kept = [f'.a.{machine}-{ours}-00000000.tmp', f'.b.{other}-{ours}-00000000.tmp', f'.c.{machine}-x-00000000.tmp']
    left = [f'.d.{machine}-{2**31 - 1}-00000000.tmp', f'.e.{other}-{ours}-00000000.tmp', f'.f.{other}-{2**31}-00000000.tmp']
    for name in kept + left:
        (tmp_path / name).touch()
    for name in left[1:]:
        os.utime(tmp_path / name, (old, old))
    (tmp_path / left[0]).unlink()
    (tmp_path / left[0]).symlink_to(tmp_path / kept[0])  # the link goes, not what it leads to
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == kept


def test_what_a_killed_process_left_that_nobody_waits_for(tmp_path):
    """As children of a killed launcher in a container whose first process collects none: the number stays in use."""
    for seconds, expected in (('0', []), ('100', ['.x.pth'])):
        name = f'(x) Z {seconds}'  # what stands in /proc before the state
        code = f'import ctypes, time; ctypes.CDLL(None).prctl(15, {name.encode()!r}); print(flush=True); time.sleep({seconds})'
        with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            if not expected:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and is not collected
            (tmp_path / f'.x.pth.{atomic._machine()}-{process.pid}-00000000.tmp').touch()
            remove_leftovers(tmp_path)
            assert [path.name[:6] for path in tmp_path.iterdir()] == expected
            assert atomic.is_running(process.pid) == bool(expected)
            process.kill()


def test_a_replaced_folder_is_restored_after_a_kill(tmp_path):
    path = tmp_path / 'model'
    for moment, expected in (('aside', 'old'), ('kept', 'new')):
        path.mkdir()
        (path / 'old').touch()
        kill_while_writing(path, moment)
        assert (tmp_path / '.model.old').is_dir()
        restore_folder(path)
        assert [file.name for file in path.iterdir()] == [expected] and not (tmp_path / '.model.old').exists()
        (path / expected).unlink()
        path.rmdir()


def test_a_folder_is_replaced_only_when_asked(tmp_path):
    for replace, expected in ((False, ['old']), (True, ['new'])):
        (tmp_path / 'x').mkdir(exist_ok=True)
        (tmp_path / 'x' / 'old').touch()
        try:
            with write_folder(tmp_path / 'x', replace) as folder:
                (folder / 'new').touch()
        except OSError:
            assert not replace
        assert [path.name for path in (tmp_path / 'x').iterdir()] == expected
        assert [path.name for path in tmp_path.iterdir()] == ['x']


def test_long_names(tmp_path):
    write_json(tmp_path / ('ä' * 125), {})
    assert len(list(tmp_path.iterdir())) == 1
