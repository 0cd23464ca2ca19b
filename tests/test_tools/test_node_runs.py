"""Trainings of several launchers, and of one that starts its processes again."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers.small_world import ROOT
from mmengine.config import Config

from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec

USP = ROOT / 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'


@pytest.fixture(scope='module')
def cache(demo_data, tiny_vae_folder, tmp_path_factory):
    """Cached latents of 40 digits."""
    folder = tmp_path_factory.mktemp('digits') / 'cache'
    codec = build_codec('tiny', path=str(tiny_vae_folder))
    write_cache(str(demo_data / 'imagenet/train'), folder, codec, CacheSpec(64, flip=False), num_workers=0)
    return folder


@pytest.fixture
def config(cache, tiny_vae_folder, tmp_path):
    """A pretraining of 40 digits on two processes, 4 epochs of 5 iterations, one checkpoint kept."""
    path = tmp_path / 'pretraining.py'
    path.write_text(
        f"""_base_ = [{str(USP)!r}]
custom_imports = dict(imports=['usp_mm', 'helpers.asked_once'])
model = dict(data_preprocessor=dict(vae=dict(path={str(tiny_vae_folder)!r})))
train_dataloader = dict(
    batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_root={str(cache)!r}, flip=False)
)
train_cfg = dict(max_epochs=4)
param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=1), restoration=dict(interval=1000))
"""
    )
    Config.fromfile(path)
    return path


def start(*command, **variables):
    """A launcher in a session of its own, with this interpreter as `python`."""
    env = {name: value for name, value in os.environ.items() if name not in ('USP_TRACEBACK', 'USP_PARENT', 'PORT')}
    env |= dict(PATH=f'{Path(sys.executable).parent}:{os.environ["PATH"]}', OMP_NUM_THREADS='1', USP_MISSING_LIMIT='120')
    env |= dict(PYTHONPATH=f'{ROOT}:{ROOT / "tests"}', **variables)
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return subprocess.Popen([*map(str, command)], cwd=ROOT, env=env, start_new_session=True, **pipes)


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]


def nodes(config, work_dir, port):
    """Two nodes of one process each, on this machine."""
    return [
        start(
            'bash', 'tools/dist_train.sh', config, 1, '--work-dir', work_dir,
            NNODES='2', NODE_RANK=str(rank), MASTER_ADDR='127.0.0.1', PORT=str(port), GLOO_SOCKET_IFNAME='lo',
        )
        for rank in (0, 1)
    ]  # fmt: skip


def weights(work_dir):
    return torch.load(work_dir / 'epoch_4.pth', map_location='cpu', weights_only=True)['state_dict']


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def finished(process, code=0):
    _, said = process.communicate(timeout=300)
    assert process.returncode == code, said
    return said


@pytest.mark.slow
def test_two_nodes_train_as_one_and_end_together(config, tmp_path):
    """Bit for bit; when a node is killed the other one ends within seconds, with an error, and --resume goes on."""
    finished(start('bash', 'tools/dist_train.sh', config, 2, '--work-dir', tmp_path / 'one'))
    port = free_port()
    for process in nodes(config, tmp_path / 'two', port):
        finished(process)
    assert same(weights(tmp_path / 'one'), weights(tmp_path / 'two'))

    kept, killed = nodes(config, tmp_path / 'killed', free_port())
    deadline = time.monotonic() + 200
    while not list((tmp_path / 'killed').glob('epoch_*.pth')):
        assert time.monotonic() < deadline and killed.poll() is None is kept.poll()
        time.sleep(0.02)
    workers = map(int, Path(f'/proc/{killed.pid}/task/{killed.pid}/children').read_text().split())
    for process in (killed.pid, *workers):  # all at once, as by a power failure
        os.kill(process, signal.SIGKILL)
    began = time.monotonic()
    said = finished(kept, code=1)
    assert time.monotonic() - began < 60 and said.splitlines()[-1].startswith('error: ')
    killed.communicate()
    assert not (tmp_path / 'killed' / 'epoch_4.pth').exists()
    finished(start('bash', 'tools/dist_train.sh', config, 2, '--work-dir', tmp_path / 'killed', '--resume'))
    assert same(weights(tmp_path / 'one'), weights(tmp_path / 'killed'))


@pytest.mark.slow
@pytest.mark.parametrize('to_all', [True, False])
def test_ctrl_c_of_a_training_says_what_is_saved(to_all, config, tmp_path):
    """A terminal sends it to the launcher and both processes, which the launcher then tells again."""
    words = ['--work-dir', tmp_path / 'run', '--cfg-options', 'train_cfg.max_epochs=10000']
    process = start('bash', 'tools/dist_train.sh', config, 2, *words)
    deadline = time.monotonic() + 200
    while not (tmp_path / 'run' / 'last_checkpoint').exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
    said = finished(process, code=130)
    assert 'Traceback' not in said and 'Warning' not in said
    line = r'interrupted after iteration (\d+): the last checkpoint is (\S+); the same command with --resume goes on from there'
    found = re.fullmatch(line, said.splitlines()[-1])
    assert found, said
    assert Path(found[2]).exists() and 5 <= int(found[1]) < 50000


@pytest.mark.slow
@pytest.mark.parametrize('module', ['usp_mm.runtime.torchrun', 'torch.distributed.run'])
def test_max_restarts_goes_on_from_the_checkpoint_of_a_signal(module, config, tmp_path):
    """A process that is asked to end exits with 75; the launcher starts all again, which go on without --resume."""
    text = config.read_text() + "custom_hooks = [dict(type='AsksOnce', iteration=7)]\n"
    asked = tmp_path / 'asked.py'
    asked.write_text(text)
    command = [sys.executable, '-m', module, '--standalone', '--nproc-per-node', 2, '--max-restarts', 2]
    finished(start(*command, 'tools/train.py', asked, '--launcher', 'pytorch', '--work-dir', tmp_path / 'asked'))
    finished(start('bash', 'tools/dist_train.sh', config, 2, '--work-dir', tmp_path / 'whole'))
    assert same(weights(tmp_path / 'asked'), weights(tmp_path / 'whole'))
    text = ''.join(path.read_text() for path in sorted((tmp_path / 'asked').glob('*/*.log')))
    assert re.search(r'a signal to another process: saved \S+/iter_(8|9)\.pth; the same command with --resume goes on', text)
    assert 'TORCHELASTIC_RESTART_COUNT=1: the job was started again, as with --resume' in text
    assert sorted(path.name for path in (tmp_path / 'asked').glob('*.pth')) == ['epoch_4.pth']
