"""How tools end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_world import ROOT, run_tool


def test_processes_that_end_after_a_collective_do_not_abort(tmp_path):
    """Exit codes are kept and exit handlers run; on a plain exit about every second of these processes aborts."""
    done = run_tool(Path(__file__).parents[1] / 'helpers' / 'two_processes.py', tmp_path)
    assert (done.stdout, done.stderr) == (3 * 'at exit\nat exit\n[3, 0]\n', '')


@pytest.mark.parametrize('unbuffered', ['', '1'])
@pytest.mark.parametrize(
    ('words', 'codes'),
    [
        (['--help'], {141}),
        ([], {2, 141}),
        (['--version'], {141}),
        (['train', '--help'], {0, 141}),  # argparse passes over the error itself
        (['convert', '--help'], {0, 141}),
    ],
)
def test_a_reader_that_ends_early_ends_the_tool_without_a_word(words, codes, unbuffered):
    """As `usp … | head -1`: the pipe is closed before anything is printed."""
    program = [sys.executable, '-c', 'from usp_mm.cli.main import main; main()', *words]
    env = {**os.environ, 'PYTHONUNBUFFERED': unbuffered}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, env=env) as process:
        process.stdout.close()
        told = process.stderr.read().decode()
        process.wait()
    assert process.returncode in codes and told == ''
