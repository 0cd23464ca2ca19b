"""How several processes end: the last line on the screen is ours, once, and nobody is left behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers.small_world import ROOT
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from usp_mm.runtime import command, processes, torchrun

TOOL = str(Path(__file__).parents[1] / 'helpers' / 'launched_tool.py')


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """As a process that `usp_mm.runtime.torchrun` has launched; its error file."""
    monkeypatch.setattr(command, 'end_with_parent', lambda: None)
    for name, value in dict(PARENT=os.getppid(), RESTARTS=0, MOST_RESTARTS=0, ERROR_FILE=tmp_path / 'error.json').items():
        monkeypatch.setenv(getattr(processes, name if name == 'PARENT' else f'_{name}'), str(value))
    return tmp_path / 'error.json'


def ended(main):
    with pytest.raises(SystemExit) as raised:
        command.run_command(main)
    return raised.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (ValueError('no such thing'), 1, 'error: no such thing  (USP_TRACEBACK=1 shows where)'),
        (SystemExit('error: no input'), 1, 'error: no input'),
        (KeyboardInterrupt(), 130, 'interrupted'),
        (KeyboardInterrupt('after iteration 3'), 130, 'interrupted after iteration 3'),
        (processes.Stopped(signal.SIGINT), 130, 'interrupted'),
        (processes.Stopped(signal.SIGTERM), 143, 'stopped by SIGTERM'),
    ],
)
def test_a_launched_tool_leaves_its_line_to_the_launcher(error, code, line, launched, capfd, monkeypatch):
    monkeypatch.delenv('USP_TRACEBACK', raising=False)
    assert ended(raising(error)) == code
    assert capfd.readouterr().err == '' and processes.read_reason(json.loads(launched.read_text())).message == line
    for variable, value in ((processes._MOST_RESTARTS, '3'), (processes.PARENT, '1'), (processes._ERROR_FILE, '')):
        with monkeypatch.context() as patch:  # to be started again, launched by torchrun or by nobody: it shows the line itself
            patch.setenv(variable, value)
            assert ended(raising(error)) == code
            assert capfd.readouterr().err == f'{line}\n'


def test_bugs_and_traceback_on_demand_keep_their_tracebacks(launched, monkeypatch):
    with pytest.raises(RuntimeError):
        command.run_command(raising(RuntimeError('a bug')))
    reason = json.loads(launched.read_text())['message']
    assert reason['message'] == 'error: RuntimeError: a bug' and not reason['extraInfo']['foreseen']
    assert 'Traceback' in reason['extraInfo']['py_callstack']
    monkeypatch.setenv('USP_TRACEBACK', '1')
    with pytest.raises(ValueError, match='no such thing'):
        command.run_command(raising(ValueError('no such thing')))
    assert processes.read_reason(json.loads(launched.read_text())).message.startswith('error: no such thing')


def failure(exitcode, tmp_path, message=None, foreseen=True, seconds=0.0):
    file = tmp_path / f'{message}-{exitcode}.json'
    if message:
        info = dict(py_callstack=message, timestamp='100', time=100 + seconds, line=message, foreseen=foreseen)
        file.write_text(json.dumps(dict(message=dict(message=message, extraInfo=info))))
    return ProcessFailure(local_rank=0, pid=1, exitcode=exitcode, error_file=str(file))


def test_the_cause_is_shown_and_not_its_consequences(tmp_path):
    mistake, later = failure(1, tmp_path, 'error: mistake'), failure(1, tmp_path, 'error: later', seconds=2)
    closed = failure(-15, tmp_path, 'error: RuntimeError: closed', foreseen=False, seconds=-1)
    killed, ended, usage = failure(-9, tmp_path), failure(-15, tmp_path), failure(2, tmp_path)
    assert torchrun._explain({0: closed, 1: later, 2: mistake, 3: ended}) == ('error: mistake', 1)
    assert torchrun._explain({0: closed, 1: killed}) == ('error: process 1 was ended by SIGKILL', 137)
    assert torchrun._explain({0: ended, 1: closed}) == ('error: RuntimeError: closed', 1)
    assert torchrun._explain({0: ended, 1: failure(3, tmp_path)}) == ('error: process 1 ended with exit code 3', 3)
    assert torchrun._explain({0: usage, 1: ended}) == (None, 2)  # argparse has said it


def test_the_line_after_a_signal(tmp_path):
    """The first process's own line, if it is about that signal; other runs' and broken files are passed over."""
    told = [torchrun._after_signal(signal.SIGINT, folder, 0.0) for folder in (tmp_path, None)]
    assert told == [('interrupted', 130)] * 2
    for rank, message in enumerate(('error: closed', 'interrupted after iteration 3', 'interrupted after iteration 4')):
        info = dict(time=1.0, line=message, foreseen=True)
        (tmp_path / str(rank)).mkdir()
        (tmp_path / str(rank) / 'error.json').write_text(json.dumps(dict(message=dict(message=message, extraInfo=info))))
    assert torchrun._after_signal(signal.SIGINT, tmp_path, 0.0) == ('interrupted after iteration 3', 130)
    assert torchrun._after_signal(signal.SIGINT, tmp_path, time.time() + 60) == ('interrupted', 130)
    for content in ('{"mess', '[]'):
        (tmp_path / '1' / 'error.json').write_text(content)
        assert torchrun._after_signal(signal.SIGINT, tmp_path, 0.0) == ('interrupted after iteration 4', 130)
    assert torchrun._after_signal(signal.SIGTERM, tmp_path, 0.0) == ('stopped by SIGTERM', 143)


@pytest.mark.parametrize(
    ('redirects', 'tee', 'log_dir', 'ours'), [('0', '0', None, True), ('3', '0', None, False), ('0', '0', 'x', False)]
)
def test_the_folder_of_error_files(redirects, tee, log_dir, ours):
    args = SimpleNamespace(redirects=redirects, tee=tee, log_dir=log_dir)
    with torchrun._error_files(args) as folder:
        assert (args.log_dir == str(folder) and folder.is_dir()) == ours
    assert folder is None or not folder.exists()


def test_threads_and_nohup_are_respected(monkeypatch):
    args = SimpleNamespace(nproc_per_node='2', signals_to_handle='SIGTERM,SIGINT,SIGHUP', max_restarts=0)
    threads = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')
    for name in (*threads, 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT', processes.PARENT):
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)
    monkeypatch.setattr(signal, 'getsignal', lambda number: signal.SIG_IGN)
    torchrun._prepare(args)
    assert (args.signals_to_handle, *map(os.environ.get, threads)) == ('SIGTERM,SIGINT,SIGUSR1', '1', '1')
    for omp, mkl, kept in (('7', None, '7'), ('7', '3', '3')):
        monkeypatch.setenv('OMP_NUM_THREADS', omp)
        monkeypatch.setenv('MKL_NUM_THREADS', mkl or '')
        if mkl is None:
            monkeypatch.delenv('MKL_NUM_THREADS')
        torchrun._prepare(args)
        assert [os.environ[name] for name in threads] == [omp, kept]


def test_a_process_whose_launcher_has_ended_before_it_could_say_so_ends(monkeypatch, capfd):
    codes = []
    monkeypatch.setattr(processes.os, '_exit', codes.append)
    monkeypatch.setenv(processes.PARENT, '999999999')
    processes.end_with_parent()
    assert codes == [143] and capfd.readouterr().err == 'the process that started this one has ended\n'
    monkeypatch.setenv(processes.PARENT, str(os.getpid()))  # one that is there, and no parent
    processes.end_with_parent()
    assert codes == [143]


def test_ctrl_c_that_the_launcher_repeats_does_not_cut_off_the_end(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    now = time.monotonic()
    try:
        monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
        processes.interrupt_once()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody repeats it there
        monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
        processes.interrupt_once()
        for seconds, heard in ((0, True), (0.01, False), (0.9, False), (1.5, True), (2.4, False), (2.6, True)):
            monkeypatch.setattr(processes.time, 'monotonic', lambda now=now + seconds: now)
            if heard:
                with pytest.raises(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
            else:
                signal.raise_signal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        processes.interrupt_once()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as nohup and a shell's background ask
    finally:
        signal.signal(signal.SIGINT, before)


# ---------------------------------------------------------------------- real processes


@pytest.mark.parametrize('host', ['127.0.0.1', '0.0.0.0'])
def test_a_port_that_is_taken(host, capfd, monkeypatch):
    monkeypatch.delenv('USP_TRACEBACK', raising=False)
    for name in (processes.PARENT, 'TORCH_ELASTIC_SHUTDOWN_TIMEOUT', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.setenv(name, '1')  # restored afterwards
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        options = ['--master_addr=127.0.0.1', f'--master_port={port}', '--nproc_per_node=2']
        assert torchrun.launch([*options, TOOL, 'wait']) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith(f'error: port {port} of this machine is taken: on one node leave PORT out')


def start(*command):
    """A command in a process group of its own, as a terminal starts it: SIGHUP and SIGINT end it, even if ignored here."""
    env = {key: value for key, value in os.environ.items() if key not in ('USP_TRACEBACK', 'USP_PARENT')}
    env['PYTHONPATH'] = str(ROOT)
    words = [sys.executable, *map(str, command)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    numbers = (signal.SIGHUP, signal.SIGINT)
    heard = [signal.signal(number, signal.SIG_DFL) for number in numbers]  # what is ignored stays so in a new process
    try:
        return subprocess.Popen(words, cwd=ROOT, env=env, start_new_session=True, **pipes)
    finally:
        for number, handler in zip(numbers, heard, strict=True):
            signal.signal(number, handler)


def launch(module, kind, processes=2):
    return start('-m', module, '--standalone', '--nproc-per-node', processes, TOOL, kind)


def read_pids(process, num):
    """The process ids that launched tools print when they have started."""
    text = ''
    while text.count('\n') < num:
        text += process.stdout.read(1)
    return [int(word) for word in text.split() if word.isdigit()]


def wait_until_ended(pids, seconds=15):
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if running(pid)]:
        assert time.monotonic() < deadline, f'{left} are left behind'
        time.sleep(0.1)


def running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ('kind', 'line'), [('mistake', 'there is no such thing: give another'), ('mistake of the last', 'it is only me')]
)
def test_a_mistake_is_the_last_line_once(kind, line):
    process = launch('usp_mm.runtime.torchrun', kind)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert said == f'error: {line}  (USP_TRACEBACK=1 shows where)\n', said
    wait_until_ended([int(word) for word in out.split() if word.isdigit()])


@pytest.mark.slow
def test_torchrun_itself_reports_the_line():
    process = launch('torch.distributed.run', 'mistake')
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    root = said.rpartition('Root Cause')[2]
    assert 'traceback : error: there is no such thing: give another  (USP_TRACEBACK=1 shows where)\n===' in root


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'to_all', 'code', 'line'),
    [
        (signal.SIGINT, True, 130, 'interrupted\n'),
        (signal.SIGINT, False, 130, 'interrupted\n'),
        (signal.SIGTERM, False, 143, 'stopped by SIGTERM\n'),
        (signal.SIGKILL, False, -9, ''),
    ],
)
def test_a_signal_ends_all_within_seconds(number, to_all, code, line):
    process = launch('usp_mm.runtime.torchrun', 'wait')
    pids = read_pids(process, 2)
    (os.killpg if to_all else os.kill)(process.pid, number)
    wait_until_ended(pids)
    assert process.wait(15) == code
    assert process.stderr.read() == line


@pytest.mark.slow
@pytest.mark.parametrize('to_all', [True, False])
def test_ctrl_c_tells_what_the_first_process_tells_and_leaves_no_folder(to_all, tmp_path, monkeypatch):
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    process = launch('usp_mm.runtime.torchrun', 'wait and tell')
    pids = read_pids(process, 2)
    assert list(tmp_path.glob('torchelastic_*'))
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    wait_until_ended(pids)
    assert process.wait(15) == 130
    assert process.stderr.read() == 'interrupted after iteration 3\n'
    assert not list(tmp_path.glob('torchelastic_*'))


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGHUP, signal.SIGKILL])
def test_stages_of_the_quickstart_end_with_it(number, tmp_path):
    script = f"""
import signal, sys
from pathlib import Path
from usp_mm.own_pictures.stages import Stages
from usp_mm.runtime.command import run_command
from usp_mm.runtime.processes import stop_on

def main():
    stop_on(signal.SIGTERM, signal.SIGHUP)
    stages = Stages(Path({str(tmp_path)!r}))
    stages.run_together({{name: [{TOOL!r}, 'child'] for name in 'ab'}})

run_command(main)
"""
    process = start('-c', script)
    logs = [tmp_path / 'logs' / f'{name}.log' for name in 'ab']
    while not all(log.exists() and log.read_text().endswith('\n') for log in logs):
        assert process.poll() is None
        time.sleep(0.1)
    os.kill(process.pid, number)
    wait_until_ended([int(log.read_text().split()[1]) for log in logs])
    assert process.wait(15) == (-9 if number == signal.SIGKILL else 128 + number)
    told = f'stopped by {number.name}: run the same command again; data, VAE and latent caches that are finished are kept\n'
    assert process.stderr.read() == ('' if number == signal.SIGKILL else told)


@pytest.mark.slow
def test_the_quickstart_stopped_by_sigterm_leaves_nothing_running(tmp_path):
    process = start('tools/quickstart.py', '--work-dir', tmp_path / 'quickstart')
    children = Path(f'/proc/{process.pid}/task/{process.pid}/children')
    while not (pids := children.read_text().split()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.wait(30) == 143
    wait_until_ended(map(int, pids))
    assert process.stderr.read().startswith('stopped by SIGTERM: run the same command again; ')
