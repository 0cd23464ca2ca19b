"""The demo from end to end, shortened."""

import json

import pytest
from PIL import Image
from small_world import run_tool


@pytest.mark.slow
def test_every_stage_and_a_second_run(tmp_path, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    work_dir = tmp_path / 'quickstart'
    short = ['--vae-steps', 20, '--pretrain-epochs', 13, '--probe-epochs', 11]
    done = run_tool('tools/quickstart.py', '--work-dir', work_dir, *short)
    assert done.returncode == 0, done.stdout
    summary = json.loads((work_dir / 'summary.json').read_text())
    stages = ['demo data', 'tiny VAE', 'cache train', 'cache val', 'pretrain seed 0', 'probe usp seed 0', 'probe random seed 0']
    assert list(summary['seconds']) == [*stages, 'restoration']
    assert set(summary) == {'runs', 'seconds', 'picture', 'torch', 'device'} and summary['device']
    (run,) = summary['runs']
    assert run['loss_last'] < run['loss_first']
    assert set(run['accuracy']) == {'usp', 'random'} and min(run['accuracy'].values()) > 20
    assert Image.open(summary['picture']).size == (4 * 68, 8 * 68)
    for row in ('pretraining loss, first → last', 'linear probe, USP encoder', 'tensorboard --logdir'):
        assert row in done.stdout

    vae = work_dir / 'vae' / 'config.json'
    before = vae.stat().st_mtime_ns
    checkpoint = next(work_dir.glob('latents/train/shard-*.npy'))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    (work_dir / 'latents' / 'val' / 'plan.json').write_text('{')
    failed = run_tool('tools/quickstart.py', '--work-dir', work_dir, *short)
    assert failed.returncode == 1 and vae.stat().st_mtime_ns == before
    assert "stage 'cache val' failed" in failed.stderr
    early = run_tool('tools/quickstart.py', '--pretrain-epochs', 5)
    assert early.returncode == 2 and '--pretrain-epochs 5 must be more than the 12 warm-up epochs' in early.stderr
