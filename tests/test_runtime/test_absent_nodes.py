"""Launchers of several nodes, one of which never starts: the other says for whom it waits, and ends."""

import os
import socket
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from helpers.small_world import ROOT
from torch.distributed import TCPStore
from torch.distributed.run import parse_args

from usp_mm.runtime.absent_nodes import Nodes, nodes_of

TOOL = str(Path(__file__).parents[1] / 'helpers' / 'launched_tool.py')
OPTIONS = ['--nproc_per_node=1', '--master_addr=127.0.0.1', '--master_port=29700']


@pytest.fixture(autouse=True)
def limits(monkeypatch):
    monkeypatch.setenv('USP_MISSING_TOLD', '1')
    monkeypatch.setenv('USP_MISSING_LIMIT', '3')


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ('conf', 'limit', 'passed_on'),
    [([], 3.0, 'timeout=3'), (['--rdzv-conf=timeout=7'], 7.0, 'timeout=7'), (['--rdzv-conf=a=1'], 3.0, 'a=1,timeout=3')],
)
def test_the_limit_is_the_environments_or_that_of_the_options(conf, limit, passed_on):
    args = parse_args(['--nnodes=2', '--node_rank=1', *OPTIONS, *conf, TOOL])
    nodes = nodes_of(args)
    assert (nodes.rank, nodes.number, nodes.address, nodes.limit) == (1, 2, ('127.0.0.1', 29700), limit)
    assert args.rdzv_conf == passed_on


def test_no_limit(monkeypatch):
    monkeypatch.setenv('USP_MISSING_LIMIT', '0')
    args = parse_args(['--nnodes=2', *OPTIONS, TOOL])
    assert nodes_of(args).limit == float('inf') and args.rdzv_conf == 'timeout=100000000'


@pytest.mark.parametrize('options', [['--nnodes=1'], ['--standalone'], ['--nnodes=2', '--rdzv_backend=c10d']])
def test_one_node_or_another_rendezvous_is_left_to_torchrun(options):
    args = parse_args([*options, *OPTIONS, TOOL])
    assert nodes_of(args) is None and args.rdzv_conf == ''


@pytest.mark.parametrize(
    ('conf', 'limit', 'line'),
    [('timeout=soon', '3', "timeout='soon' must be"), ('', 'soon', "USP_MISSING_LIMIT='soon' must be a number of seconds")],
)
def test_a_limit_that_is_no_number_is_refused(conf, limit, line, monkeypatch):
    monkeypatch.setenv('USP_MISSING_LIMIT', limit)
    with pytest.raises(ValueError, match=line):
        nodes_of(parse_args(['--nnodes=2', *OPTIONS, f'--rdzv-conf={conf}', TOOL]))


def test_node_1_waits_for_node_0_and_is_refused_after_the_limit(capfd):
    address = ('127.0.0.1', free_port())
    begun = time.monotonic()
    with pytest.raises(ValueError, match=r'^node 1 of 2 has waited 3 s for node 0 to meet at 127\S+ \(Connection ref'):
        Nodes(1, 2, address, 'none', 3).wait_for_first()
    assert 3 <= time.monotonic() - begun < 8
    told = capfd.readouterr().err.splitlines()
    assert len(told) in (1, 2) and all(line.startswith('node 1 of 2 has waited ') for line in told)
    assert 'start the same command there with NODE_RANK=0 (--node-rank), and check MASTER_ADDR, PORT, NNODES and' in told[0]
    assert told[0].endswith('USP_MISSING_LIMIT sets how many seconds nodes wait, now 3')


def test_node_1_goes_on_when_node_0_comes():
    port = free_port()
    late = threading.Timer(1.0, lambda: servers.append(socket.create_server(('127.0.0.1', port))))
    servers = []
    late.start()
    Nodes(1, 2, ('127.0.0.1', port), 'none', 30).wait_for_first()
    assert len(servers) == 1
    servers[0].close()


def test_the_nodes_that_have_not_come_are_those_without_a_key():
    port = free_port()
    store = TCPStore('127.0.0.1', port, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=30))
    nodes = [Nodes(rank, 4, ('127.0.0.1', port), 'none', 30) for rank in range(4)]
    assert nodes[0].absent() == [1, 2, 3]
    assert nodes[2].absent() == [1, 3]
    line = nodes[2].absence([1, 3], 60)
    assert line.startswith(f'node 2 of 4 has waited 60 s for node 1 and node 3 to meet at 127.0.0.1:{port}: start')
    assert 'NODE_RANK=1 (--node-rank)' in line
    store.set('none/torchelastic/assigned_ranks/0', '[]')  # plain torchrun on the others: all have come
    assert nodes[0].absent() == []


def start(rank, port, kind):
    env = {**os.environ, 'NNODES': '2', 'NODE_RANK': str(rank), 'MASTER_ADDR': '127.0.0.1', 'PORT': str(port)}
    for name in ('USP_TRACEBACK', 'USP_PARENT'):
        env.pop(name, None)
    env['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), env['PATH']])
    words = kind or [
        sys.executable,
        '-m',
        'usp_mm.runtime.torchrun',
        '--nnodes=2',
        f'--node_rank={rank}',
        '--master_addr=127.0.0.1',
    ]
    if not kind:
        words += [f'--master_port={port}', '--nproc_per_node=1', TOOL, 'mistake']
    return subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(('rank', 'other'), [(0, 1), (1, 0)])
def test_dist_train_ends_when_the_other_node_never_starts(rank, other):
    port = free_port()
    process = start(rank, port, ['bash', str(ROOT / 'tools/dist_train.sh'), 'CONFIG', '1'])
    _, said = process.communicate(timeout=120)
    lines = said.splitlines()
    assert process.returncode == 1
    assert lines[0].startswith(f'node {rank} of 2 has waited 1 s for node {other} to meet at 127.0.0.1:{port}')
    assert lines[-1].startswith(f'error: node {rank} of 2 has waited ') and f's for node {other} to meet at' in lines[-1]
    assert f'NODE_RANK={other} (--node-rank)' in lines[-1]


@pytest.mark.slow
def test_two_nodes_that_meet_say_nothing_of_it(monkeypatch):
    monkeypatch.setenv('USP_MISSING_LIMIT', '60')
    monkeypatch.setenv('USP_MISSING_TOLD', '30')
    port = free_port()
    processes = [start(rank, port, None) for rank in (1, 0)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 1
        assert 'has waited' not in said
    assert said.splitlines()[-1] == 'error: there is no such thing: give another  (USP_TRACEBACK=1 shows where)'
