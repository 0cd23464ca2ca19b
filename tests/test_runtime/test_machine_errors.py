"""What a machine lacks is said in one line, with the resource, its size and the fix."""

import errno
import json
import os
import resource
import signal
import sys
from contextlib import contextmanager

import pytest
from torch.utils.data import DataLoader

from usp_mm.fileio.atomic import write_whole
from usp_mm.runtime import command
from usp_mm.runtime.machine_errors import explain_machine


@contextmanager
def limited(kind, soft):
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def told(main, capfd, monkeypatch):
    """The line with which a tool ends."""
    monkeypatch.delenv('USP_TRACEBACK', raising=False)
    with pytest.raises(SystemExit) as end:
        command.run_command(main)
    assert end.value.code == 1
    return capfd.readouterr().err


def test_a_full_disk_names_the_file_and_the_sizes(tmp_path):
    with (
        limited(resource.RLIMIT_FSIZE, 4096),
        pytest.raises(OSError, match=r'4,096 bytes of it were written, [\d,]+ are free') as end,
    ):
        with write_whole(tmp_path / 'epoch_1.pth') as file:
            file.write(bytes(10000))
    assert end.value.errno == errno.EFBIG and f"cannot write '{tmp_path}/epoch_1.pth', the file size limit is" in str(end.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('kind', ['text', 'path'])
def test_a_full_disk_where_a_library_writes(kind, tmp_path, capfd, monkeypatch):
    def main():
        path = tmp_path / 'scalars.json'
        with limited(resource.RLIMIT_FSIZE, 4096):
            if kind == 'path':
                path.write_bytes(bytes(10000))
            with path.open('a') as log:
                log.write('x' * 10000)

    line = told(main, capfd, monkeypatch)
    assert line.startswith(f"error: cannot write '{tmp_path}/scalars.json', the file size limit is reached: 4,096 bytes of it")
    assert line.count('\n') == 1


def test_too_many_open_files(tmp_path, capfd, monkeypatch):
    def main():
        with limited(resource.RLIMIT_NOFILE, 64):
            kept = [(tmp_path / str(number)).open('w') for number in range(64)]
            kept.clear()

    assert told(main, capfd, monkeypatch).startswith('error: this needs more than the ')
    assert '`ulimit -n 4096`' in explain_machine(RuntimeError('received 0 items of ancdata'))


class Items:
    """Items of which one ends the process that loads it, or cannot be sent."""

    def __init__(self, kind):
        self.kind = kind

    def __len__(self):
        return 4

    def __getitem__(self, number):
        if number == 2 and self.kind == 'killed':
            os.kill(os.getpid(), signal.SIGKILL)
        return (lambda: 0) if number == 2 else number


@pytest.mark.parametrize('kind', ['killed', 'unsent'])
def test_a_process_that_loads_data_and_was_killed(kind, capfd, monkeypatch):
    """One that cannot send a batch, for which torch waits for ever, ends too."""

    def main():
        for _ in DataLoader(Items(kind), batch_size=1, num_workers=1, collate_fn=list, multiprocessing_context='fork'):
            pass

    found = told(main, capfd, monkeypatch).splitlines()
    assert (
        'which loads data, was ended' in found[-1]
        and 'lower num_workers' in found[-1]
        and 'bytes are free in /dev/shm' in found[-1]
    )
    assert found[:-1] == [] if kind == 'killed' else 'a batch cannot be sent' in found[0]


def test_too_little_shared_memory():
    killed = 'DataLoader worker (pid 12) is killed by signal: Killed. '
    assert explain_machine(RuntimeError(killed)).startswith(
        'process 12, which loads data, was ended by the signal Killed, as a'
    )
    bus = "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out of …"
    assert explain_machine(RuntimeError(bus)).startswith(
        'process 12, which loads data, was ended by the signal Bus error: there is'
    )
    none = 'unable to allocate shared memory(shm) for file </torch_1_2_0>: No space left on device (28)'
    assert '--shm-size' in explain_machine(RuntimeError(none))


def test_a_connection_that_another_process_closed(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', str(tmp_path / 'error.json'))
    gloo = '[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.77.0.2]:15013. This is'

    def main():
        raise RuntimeError(gloo)

    assert told(main, capfd, monkeypatch).startswith('error: another process on 10.77.0.2 has ended or was cut off')
    reason = json.loads((tmp_path / 'error.json').read_text())
    assert not reason['message']['extraInfo']['foreseen']  # a cause on the same machine is shown in its place


@pytest.mark.parametrize('error', [RuntimeError('a bug'), ValueError('a mistake'), OSError(errno.ENOENT, 'No such file')])
def test_other_errors_are_left_alone(error):
    assert explain_machine(error) is None


def test_names_that_are_not_text_are_printed(capfd):
    with pytest.raises(SystemExit):
        command.run_command(lambda: sys.stdout.write(os.fsdecode(b'caf\xe9\n')) * 0)
    assert capfd.readouterr().out == 'caf\\udce9\n'
