"""How tools end."""

from pathlib import Path

from helpers.small_world import run_tool


def test_processes_that_end_after_a_collective_do_not_abort(tmp_path):
    """Exit codes are kept and exit handlers run; on a plain exit about every second of these processes aborts."""
    done = run_tool(Path(__file__).parents[1] / 'helpers' / 'two_processes.py', tmp_path)
    assert (done.stdout, done.stderr) == (3 * 'at exit\nat exit\n[3, 0]\n', '')
