"""How a stage's output becomes its log."""

import pytest

from usp_mm.own_pictures.stages import Stages


def test_a_finished_log_holds_the_last_state_of_a_progress_bar_alone(tmp_path):
    program = r"""
import sys
sys.stdout.write('begin\r\n')
sys.stderr.write(''.join(f'\rhalf {i}' for i in range(9)) + '\nend\n')
"""
    Stages(tmp_path).run('some words', '-u', '-c', program)
    assert (tmp_path / 'logs' / 'some-words.log').read_text() == 'begin\nhalf 8\nend\n'


def test_the_log_of_a_stage_that_failed_is_shown_without_the_bar(tmp_path, capsys):
    program = r"import sys; sys.stderr.write(''.join(f'\r{i} %' for i in (1, 2)) + '\nwrong\n'); sys.exit(3)"
    with pytest.raises(SystemExit, match="stage 'words' failed"):
        Stages(tmp_path).run('words', '-u', '-c', program)
    assert (tmp_path / 'logs' / 'words.log').read_text() == '2 %\nwrong\n'
    assert '1 %' not in capsys.readouterr().out
