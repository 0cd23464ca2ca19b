"""A process that stops is named, and the others end instead of waiting for days."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.small_world import ROOT
from torch.distributed.elastic.utils.distributed import get_free_port

from usp_mm.runtime.heartbeat import ENDED_AFTER, LOGGED_AFTER, Beat, Heartbeat, Watch, seconds_of, start_heartbeat

TOOL = Path(__file__).parents[1] / 'helpers' / 'waiting_tool.py'


def beat(number=1, done=0, waits=False):
    return json.dumps(Beat(number, done, waits, 'b', 'read (file.py:7)'))


def watch(*hearings):
    """The watch of process 0 of three, which began at 100 s and heard (seconds, beats)."""
    found = Watch(0, 3, started=100.0)
    for now, texts in hearings:
        found.hear(texts, now)
    return found


def test_a_process_without_a_beat_is_missing_since_its_last_one():
    found = watch((105, [beat(), beat(), beat()]), (110, [beat(2), beat(2), beat()]), (165, [beat(9), beat(9), beat()]))
    assert found.missing(170) == ([2], 65)
    assert found.names([2]) == 'process 2 (on b, last seen in read (file.py:7))'


def test_one_that_never_came_is_missing_from_the_beginning_and_one_that_ended_is_not():
    found = watch((110, [beat(), None, 'ended']), (160, [beat(2), None, 'ended']))
    assert found.missing(165) == ([1], 65) and found.names([1]) == 'process 1 (not heard of yet)'


def test_one_behind_in_steps_is_what_the_others_wait_for():
    found = watch((110, [beat(1, 8), beat(1, 7), beat(1, 8)]), (190, [beat(9, 8), beat(9, 7), beat(9, 8)]))
    assert found.behind(190) == ([1], 80) and found.takes_steps()
    found.hear([beat(10, 8), beat(10, 8), beat(10, 8)], 195)
    assert found.behind(200) == ([], 0.0)


def test_one_that_is_stuck_between_steps_is_what_the_others_wait_for():
    texts = [[beat(number, 8, True), beat(number, 8), beat(number, 8, True)] for number in (1, 9)]
    found = watch((110, texts[0]), (190, texts[1]))
    assert found.behind(200) == ([1], 90) and found.takes_steps()


def test_one_that_works_while_others_wait_may_take_as_long_as_it_likes():
    found = watch((110, [beat(1, 0, True), beat(1), beat(1, 0, True)]), (190, [beat(9, 0, True), beat(9), beat(9, 0, True)]))
    assert found.behind(200) == ([1], 90) and not found.takes_steps()
    assert found.missing(200)[1] < 60


def test_a_job_that_was_suspended_as_a_whole_begins_anew():
    found = watch((110, [beat(), beat(), beat()]))
    found.excuse(5000)
    assert found.missing(5010) == ([1, 2], 10) and found.heard == 5000


@pytest.fixture
def lines(monkeypatch):
    """What a process's heartbeat says, and the line with which it ends; the limits are 60 and 300 s."""
    monkeypatch.setenv(LOGGED_AFTER, '60')
    monkeypatch.setenv(ENDED_AFTER, '300')
    said = []
    monkeypatch.setattr(Heartbeat, '_say', lambda self, line: said.append(line))
    monkeypatch.setattr(Heartbeat, '_end', lambda self, line: said.append(line))
    return said


def test_lines_come_sparsely_from_one_process_and_the_last_ends_it(lines):
    first, second = (Heartbeat(rank, 3, ('127.0.0.1', 1), '0') for rank in (0, 1))
    for one in (first, second):
        one._watch.__init__(one.rank, 3, 0.0)
        for now in range(0, 301, 5):
            one._watch.hear([beat(now), beat(now), beat(1)], now)
            one._check(now)
            if now < 300 and one is second:
                assert len(lines) == 4  # the first process speaks for it
    assert [re.search(r'for (\d+) s', line)[1] for line in lines[:3]] == ['60', '120', '240']
    assert lines[0].startswith('no sign of process 2 (on b, last seen in read (file.py:7)) for 60 s; this ends after 300 s')
    assert lines[3].startswith('error: no sign of process 2 (') and ENDED_AFTER in lines[3]


def test_a_process_that_is_cut_off_says_so_itself(lines):
    alone = Heartbeat(1, 2, ('10.0.0.1', 29500), '0')
    alone._watch.__init__(1, 2, 0.0)
    alone._watch.hear([beat(), beat()], 5)
    alone._check(70)
    assert lines[0].startswith('process 1 on ') and 'has not reached the store at 10.0.0.1:29500 for 65 s' in lines[0]


@pytest.mark.parametrize('text', ['soon', '-1', 'inf', 'nan'])
def test_a_limit_is_a_number_of_seconds(text, monkeypatch):
    monkeypatch.setenv(ENDED_AFTER, text)
    with pytest.raises(ValueError, match=f"{ENDED_AFTER}='{text}' must be a number of seconds, 0 for never"):
        seconds_of(ENDED_AFTER)


def test_one_process_alone_has_none(monkeypatch):
    for name, value in dict(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='1').items():
        monkeypatch.setenv(name, value)
    assert start_heartbeat() is None


def test_the_page_has_the_defaults(monkeypatch):
    page = (ROOT / 'docs' / 'clusters.md').read_text()
    for name in (LOGGED_AFTER, ENDED_AFTER):
        monkeypatch.delenv(name, raising=False)
        assert f'| `{name}` | {seconds_of(name):.0f} | seconds' in page


@pytest.mark.slow
def test_a_stopped_process_ends_the_one_that_waits_for_it():
    place = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(get_free_port()), WORLD_SIZE='2', PYTHONPATH=str(ROOT))
    env = {**os.environ, **place, LOGGED_AFTER: '2', ENDED_AFTER: '15', 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, str(TOOL), 'stops']
    waiting, stopped = (
        subprocess.Popen(command, env={**env, 'RANK': rank}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in '01'
    )
    try:
        out, _ = waiting.communicate(timeout=120)
    finally:
        stopped.send_signal(signal.SIGKILL)
        stopped.communicate()
    assert waiting.returncode == 1
    assert re.search(
        r'no sign of process 1 \((?:on .*|not heard of yet)\) for \d+ s; this ends after 15 s \(USP_MISSING_LIMIT\)',
        out,
    )
    assert re.fullmatch(r'error: no sign of process 1 \((?:on .*|not heard of yet)\) for \d+ s: .*', out.splitlines()[-1])
