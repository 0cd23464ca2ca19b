"""Shell launchers, and upstream's own train.py on our configs."""

import os
import subprocess
from pathlib import Path

import mmpretrain
import pytest
from helpers.small_world import ROOT, run_tool
from mmengine.config import Config

DIGITS = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'


@pytest.fixture
def recorder(tmp_path):
    """An environment whose `srun` and `python` write down how they were called."""
    for name in ('srun', 'python'):
        path = tmp_path / 'bin' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('#!/bin/sh\necho "$(basename "$0") $*"\n')
        path.chmod(0o755)
    return {**os.environ, 'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}'}


def called(env, *command, **variables):
    done = subprocess.run(['bash', *command], cwd=ROOT, env={**env, **variables}, capture_output=True, text=True, check=True)
    return ' '.join(done.stdout.split())


def test_slurm(recorder):
    train = called(recorder, 'tools/slurm_train.sh', 'gpu', 'job', 'c.py', 'out', '--resume', GPUS='64', SRUN_ARGS='--qos x')
    assert train == (
        'srun -p gpu --job-name=job --gres=gpu:8 --ntasks=64 --ntasks-per-node=8 --cpus-per-task=5 --kill-on-bad-exit=0 '
        '--wait=60 --signal=USR1@120 --qos x python -u tools/train.py c.py --work-dir out --launcher slurm --resume'
    )
    test = called(recorder, 'tools/slurm_test.sh', 'gpu', 'job', 'c.py', 'epoch_1.pth', GPUS='1', GPUS_PER_NODE='1')
    assert test.endswith('python -u tools/test.py c.py epoch_1.pth --launcher slurm')
    assert '--gres=gpu:1 --ntasks=1 --ntasks-per-node=1' in test


@pytest.mark.parametrize('batch_job', [False, True])
def test_a_preempted_slurm_job_goes_on(batch_job, recorder, tmp_path):
    """Exit code 75 twice, then 0: by another srun, or within a batch job by one requeue."""
    srun = '#!/bin/sh\necho "srun $*" >> calls\n[ $(wc -l < calls) -gt 2 ] || exit 75\n'
    (tmp_path / 'bin' / 'srun').write_text(srun)
    (tmp_path / 'bin' / 'scontrol').write_text('#!/bin/sh\necho "scontrol $*" >> calls\n')
    (tmp_path / 'bin' / 'scontrol').chmod(0o755)
    job = dict(SLURM_JOB_ID='7') if batch_job else {}
    command = ['bash', ROOT / 'tools/slurm_train.sh', 'gpu', 'job', 'c.py', 'out', '--fast']
    subprocess.run([*map(str, command)], cwd=tmp_path, env={**recorder, **job}, check=True)
    calls = (tmp_path / 'calls').read_text().splitlines()
    assert calls[0].endswith('--work-dir out --launcher slurm --fast')
    if batch_job:
        assert calls[1:] == ['scontrol requeue 7']
    else:
        assert len(calls) == 3 and all(call.endswith('--launcher slurm --fast --resume') for call in calls[1:])
        (tmp_path / 'bin' / 'srun').write_text('#!/bin/sh\nexit 3\n')
        assert subprocess.run([*map(str, command)], cwd=tmp_path, env=recorder).returncode == 3


def test_a_job_that_cannot_be_requeued_says_so_and_ends_with_the_code_of_the_training(recorder, tmp_path):
    """Within `salloc` there is a job and nothing to requeue."""
    (tmp_path / 'bin' / 'srun').write_text('#!/bin/sh\necho "srun $*" >> calls\nexit 75\n')
    (tmp_path / 'bin' / 'scontrol').write_text('#!/bin/sh\nexit 1\n')
    (tmp_path / 'bin' / 'scontrol').chmod(0o755)
    command = ['bash', str(ROOT / 'tools/slurm_train.sh'), 'gpu', 'job', 'c.py', 'out']
    env = {**recorder, 'SLURM_JOB_ID': '7'}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 75 and len((tmp_path / 'calls').read_text().splitlines()) == 1
    assert done.stderr == ('job 7 cannot be requeued (salloc, or no --requeue): the same command with --resume goes on\n')


def test_one_node_takes_a_free_port(recorder):
    line = called(recorder, 'tools/dist_train.sh', 'c.py', '2')
    assert (
        line
        == 'python -m usp_mm.runtime.torchrun --nnodes=1 --standalone --nproc_per_node=2 tools/train.py c.py --launcher pytorch'
    )
    assert '--master_port=29511' in called(recorder, 'tools/dist_test.sh', 'c.py', 'e.pth', '2', PORT='29511')


def test_nodes(recorder):
    line = called(recorder, 'tools/dist_train.sh', 'c.py', '8', '--amp', NNODES='4', NODE_RANK='2', MASTER_ADDR='10.0.0.1')
    assert line == (
        'python -m usp_mm.runtime.torchrun --nnodes=4 --node_rank=2 --master_addr=10.0.0.1 --master_port=29500 '
        '--nproc_per_node=8 tools/train.py c.py --launcher pytorch --amp'
    )
    assert called(recorder, 'tools/dist_test.sh', 'c.py', 'e.pth', '8').endswith('tools/test.py c.py e.pth --launcher pytorch')


@pytest.fixture
def digits(small_world):
    cache = small_world.cache('tiny', 64)
    data = [f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}', f'train_dataloader.dataset.data_root={cache}']
    schedule = ['param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'train_cfg.max_epochs=2']
    return [*data, 'train_dataloader.batch_size=4', *schedule]


@pytest.mark.slow
def test_upstream_train_py_needs_only_the_custom_import(digits, tmp_path):
    upstream = Path(mmpretrain.__file__).parent / '.mim' / 'tools' / 'train.py'
    done = run_tool(upstream, ROOT / DIGITS, '--work-dir', tmp_path / 'run', '--cfg-options', *digits, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'run' / 'last_checkpoint').read_text().strip().endswith('epoch_2.pth')


@pytest.mark.slow
def test_amp_and_auto_scale_lr(digits, tmp_path):
    """The rate is base lr · batch · accumulation / base batch, and the dumped config has it: run again, it stays."""
    digits = [*digits, 'optim_wrapper.accumulative_counts=2']
    done = run_tool('tools/train.py', DIGITS, '--work-dir', tmp_path, '--amp', '--auto-scale-lr', '--cfg-options', *digits)
    assert done.returncode == 0, done.stderr
    cfg = Config.fromfile(tmp_path / Path(DIGITS).name)
    assert cfg.optim_wrapper.type == 'AutocastOptimWrapper'
    assert cfg.optim_wrapper.optimizer.lr == 1e-3 * 8 / 64 and cfg.auto_scale_lr == dict(base_batch_size=8, enable=False)
    line = (
        'auto_scale_lr: optim_wrapper.optimizer.lr 0.001 for a batch of 64 -> 0.000125 for 8 (4 x 2 accumulated x 1 processes)'
    )
    assert line in next(tmp_path.glob('*/*.log')).read_text()
    again = run_tool(
        'tools/train.py', tmp_path / Path(DIGITS).name, '--work-dir', tmp_path / 'again', '--resume', '--auto-scale-lr'
    )
    assert again.returncode == 0, again.stderr
    assert Config.fromfile(tmp_path / 'again' / Path(DIGITS).name).optim_wrapper.optimizer.lr == 1e-3 * 8 / 64
    log = next((tmp_path / 'again').glob('*/*.log')).read_text()
    assert f'--resume: no checkpoint in {tmp_path}/again, the run starts from the beginning' in log
