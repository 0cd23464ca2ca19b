"""The tiny autoencoder and its trainer."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from usp_mm.fileio import atomic
from usp_mm.vaes import build_codec
from usp_mm.vaes.tiny import TinyVAETraining, make_tiny_vae, save_vae, train_tiny_vae

ROOT = Path(__file__).parents[2]
SHORT = TinyVAETraining(steps=3, batch_size=4, size=32)


def test_seed_decides_the_weights_and_nothing_else() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (make_tiny_vae(seed).decoder.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    class Full:
        def save_pretrained(self, folder: Path) -> None:
            (folder / 'config.json').touch()
            raise OSError('no space left on device')

    with pytest.raises(OSError, match='no space left'):
        save_vae(Full(), tmp_path / 'vae')
    assert not list(tmp_path.iterdir())


def test_others_may_read_it_and_what_a_killed_training_left_goes(tmp_path: Path, ended_process: int) -> None:
    left = tmp_path / f'.vae.{atomic._machine()}-{ended_process}-00000000.tmp'
    left.mkdir()
    (left / 'config.json').touch()
    before = os.umask(0o027)
    try:
        save_vae(make_tiny_vae(), tmp_path / 'vae')
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob('*')}
    assert modes == {'vae': 0o750, 'config.json': 0o640, 'diffusion_pytorch_model.safetensors': 0o640}


def test_training_is_deterministic_and_says_its_scale(demo_data: Path, tmp_path: Path) -> None:
    folders = [demo_data / 'imagenet', demo_data / 'ade20k/images']
    reports = [train_tiny_vae(folders, tmp_path / name, SHORT) for name in ('a', 'b')]
    codecs = [build_codec('tiny', path=tmp_path / name) for name in ('a', 'b')]
    assert codecs[0].weight_hash == codecs[1].weight_hash
    assert reports[0].psnr == reports[1].psnr
    assert codecs[0].scale == reports[0].scaling_factor
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']


def test_other_seed_other_weights(demo_data: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        train_tiny_vae(demo_data / 'imagenet', tmp_path / str(seed), TinyVAETraining(steps=1, batch_size=2, size=8, seed=seed))
    hashes = {build_codec('tiny', path=tmp_path / str(seed)).weight_hash for seed in (0, 1)}
    assert len(hashes) == 2


def test_errors_come_before_training(demo_data: Path, tmp_path: Path) -> None:
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'file').touch()
    with pytest.raises(FileExistsError, match='full is not empty'):
        train_tiny_vae(demo_data, tmp_path / 'full', SHORT)
    with pytest.raises(FileNotFoundError, match='none is not a folder of images'):
        train_tiny_vae(tmp_path / 'none', tmp_path / 'out', SHORT)
    with pytest.raises(FileNotFoundError, match='found 0 images'):
        train_tiny_vae(tmp_path / 'full', tmp_path / 'out', SHORT)
    with pytest.raises(ValueError, match='size=30 must be a multiple of the stride, 8'):
        train_tiny_vae(demo_data, tmp_path / 'out', TinyVAETraining(size=30))
    with pytest.raises(ValueError, match='steps=0 must be at least 1'):
        train_tiny_vae(demo_data, tmp_path / 'out', TinyVAETraining(steps=0))
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_tool_learns_to_reconstruct(demo_data: Path, tmp_path: Path) -> None:
    """250 steps of 8 at 32 pixels: far above the 12 dB of a constant grey, and latents of unit variance."""
    arguments = ['--steps', '250', '--batch-size', '8', '--size', '32']
    command = [sys.executable, 'tools/train_tiny_vae.py', str(demo_data / 'imagenet/train'), str(tmp_path / 'vae'), *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    found = re.search(r'PSNR ([\d.]+) dB, scaling factor ([\d.]+)', result.stdout)
    assert found
    assert float(found[1]) > 20
    codec = build_codec('tiny', path=tmp_path / 'vae')
    assert codec.scale == pytest.approx(float(found[2]), abs=1e-4)
