"""The demo from end to end, shortened."""

import json
import shutil

import pytest
import torch
from helpers.small_world import run_tool
from PIL import Image

from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


@pytest.mark.slow
def test_encoder_parts_and_a_second_run(tmp_path):
    work_dir = tmp_path / 'quickstart'
    short = ['--only', 'probe,pretrain,finetune,segment', '--vae-steps', 20, '--pretrain-epochs', 13, '--probe-epochs', 11]
    short += ['--finetune-epochs', 4, '--segment-steps', 2]
    done = run_tool('tools/quickstart.py', '--work-dir', work_dir, *short)
    assert done.returncode == 0, done.stdout
    summary = json.loads((work_dir / 'summary.json').read_text())
    stages = ['demo data', 'tiny VAE', 'cache train', 'cache val', 'pretrain seed 0', 'restoration']
    assert list(summary['seconds']) == [
        *stages,
        *(f'{part} {start} seed 0' for part in ('probe', 'finetune', 'segment') for start in ('usp', 'random')),
    ]
    assert list(summary) == ['pretrain', 'probe', 'finetune', 'segment', 'seconds', 'torch', 'device'] and summary['device']
    (run,) = summary['pretrain']['runs']
    assert run['loss_last'] < run['loss_first']
    for part in ('probe', 'finetune'):
        (run,) = summary[part]['runs']
        assert set(run['accuracy']) == {'usp', 'random'} and min(run['accuracy'].values()) > 20
    assert Image.open(summary['pretrain']['picture']).size == (4 * 68, 8 * 68 + 19)  # a line of titles
    (run,) = summary['segment']['runs']
    assert set(run['miou']) == {'usp', 'random'} and max(run['miou'].values()) > 0
    assert Image.open(summary['segment']['picture']).height == 4 * 130 + 2
    for row in (
        'pretraining loss, first → last',
        'linear probe, USP encoder',
        'fine-tuning, USP start',
        'tensorboard --logdir',
    ):
        assert row in done.stdout

    vae = work_dir / 'vae' / 'config.json'
    before = vae.stat().st_mtime_ns
    shard = next(work_dir.glob('latents/train/shard-*.npy'))
    shard.write_bytes(shard.read_bytes()[:-1])
    (work_dir / 'latents' / 'val' / 'plan.json').write_text('{')
    failed = run_tool('tools/quickstart.py', '--work-dir', work_dir, *short)
    assert failed.returncode == 1 and vae.stat().st_mtime_ns == before
    assert "stage 'cache val' failed" in failed.stderr


@pytest.mark.slow
def test_generators_from_scratch_and_from_usp(tmp_path, small_world, demo_data, tiny_vae_folder):
    work_dir = tmp_path / 'quickstart'
    shutil.copytree(demo_data, work_dir / 'data')
    shutil.copytree(tiny_vae_folder, work_dir / 'vae')
    codec = build_codec('tiny', path=str(tiny_vae_folder))
    for split in ('train', 'val'):
        out = work_dir / 'latents' / split
        write_cache(str(demo_data / 'imagenet' / split), out, codec, CacheSpec(64, flip=False), num_workers=0)
    (work_dir / 'pretrain-seed0').mkdir()
    encoder = small_world.encoder(dict(arch='tiny', img_size=64), 'tiny')
    (work_dir / 'pretrain-seed0' / 'last_checkpoint').write_text(encoder)
    (work_dir / 'summary.json').write_text(json.dumps(dict(pretrain=dict(kept=True), seconds={'pretrain seed 0': 1.5})))

    short = ['--only', 'generate', '--generate-steps', 3, '--generate-samples', 8]
    done = run_tool('tools/quickstart.py', '--work-dir', work_dir, *short)
    assert done.returncode == 0, done.stdout
    summary = json.loads((work_dir / 'summary.json').read_text())
    assert summary['pretrain'] == dict(kept=True)
    stages = ['feature classifier', 'sit scratch seed 0', 'sit USP seed 0', 'sit curves']
    assert list(summary['seconds']) == ['pretrain seed 0', *stages, 'sit scratch samples', 'sit USP samples']
    found = summary['generate']['sit']
    assert found['metric'] == 'Feature/FD' and list(summary['generate']) == ['sit']
    scratch, usp = found['curves']
    assert (scratch['label'], usp['label'], scratch['steps'], usp['steps']) == ('scratch', 'USP', [1, 2, 3], [1, 2, 3])
    assert min(scratch['values'] + usp['values']) > 0 and scratch['values'] != usp['values']
    assert {one['label'] for one in found['speed_ups']} == {'scratch', 'USP'}
    for picture in (*found['grids'].values(), found['curve']):
        assert Image.open(picture).width > 500
    for text in ('SiT: FD by training steps', 'SiT scratch, FD', 'SiT USP, FD', "SiT: scratch's best FD"):
        assert text in done.stdout

    weights = {arm: read_weights(work_dir / f'sit-{arm}-seed0' / 'iter_3.pth') for arm in ('scratch', 'usp')}
    pretrained = torch.load(encoder, weights_only=True)['state_dict']['backbone.blocks.3.mlp.fc1.weight']
    moved = {arm: (state['denoiser.blocks.3.mlp.fc1.weight'] - pretrained).abs().mean() for arm, state in weights.items()}
    assert moved['usp'] < 0.01 < moved['scratch']


def read_weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


def test_mistakes_are_named_before_any_work(tmp_path):
    def fails(*options):
        done = run_tool('tools/quickstart.py', '--work-dir', tmp_path / 'none', *options)
        assert done.returncode != 0 and not (tmp_path / 'none').exists()
        return done.stderr

    assert '--pretrain-epochs 5 must be more than the 12 of warm-up' in fails('--pretrain-epochs', 5)
    assert (
        "--only: unknown part 'generat'" in (said := fails('--only', 'pretrain,generat')) and "did you mean 'generate'?" in said
    )
    assert '--generate-steps 0 must be at least 2' in fails('--generate-steps', 0)
    said = fails('--only', 'probe,generate')
    assert said.endswith("/none/vae/config.json, which part 'pretrain' makes: --only pretrain,probe\n"), said
