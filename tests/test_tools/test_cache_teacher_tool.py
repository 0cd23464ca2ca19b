"""tools/cache_latents.py write --teacher, in this process."""

import sys

import pytest
from helpers.teacher_files import DIM, MODEL

from usp_mm.cli.cache import main
from usp_mm.datasets.latent_cache import read_manifest


@pytest.fixture
def tool(monkeypatch, small_world):
    """Runs `write` on four images with these options; returns the exit code."""

    def run(out, *options):
        vae = ['--vae', 'tiny', '--vae-path', str(small_world.tiny_vae_folder), '--img-size', '64', '--workers', '0']
        words = ['cache_latents.py', 'write', str(small_world.images / 'train'), str(out), *vae, *map(str, options)]
        monkeypatch.setattr(sys, 'argv', words)
        return main()

    return run


def test_a_model_of_timm_and_the_teacher_of_a_config(tool, small_world, tmp_path):
    assert tool(tmp_path / 'named', '--teacher', MODEL, '--teacher-path', small_world.teacher()) == 0
    teacher = read_manifest(tmp_path / 'named')['teacher']
    assert (teacher['name'], teacher['dim'], teacher['grid'], teacher['stored']) == (MODEL, DIM, [4, 4], 'float16')
    config = tmp_path / 'config.py'
    weights, grown = small_world.teacher(), dict(encode_batch_size=3)
    config.write_text(f'model = dict(repa=dict(teacher=dict(name={MODEL!r}, path={weights!r}, **{grown!r})))\n')
    assert tool(tmp_path / 'config', '--teacher', config) == 0
    assert read_manifest(tmp_path / 'config')['teacher'] == teacher


def test_mistakes_leave_nothing(tool, small_world, tmp_path):
    with pytest.raises(ValueError, match=r"unknown teacher 'test_vitt': .*did you mean 'test_vit"):
        tool(tmp_path / 'out', '--teacher', 'test_vitt')
    with pytest.raises(FileNotFoundError, match=r'none\.pth is not a file'):
        tool(tmp_path / 'out', '--teacher', MODEL, '--teacher-path', 'none.pth')
    with pytest.raises(FileNotFoundError, match=r"no config at '.*none\.py'"):
        tool(tmp_path / 'out', '--teacher', tmp_path / 'none.py')
    with pytest.raises(ValueError, match=r"--teacher-path 'weights\.pth' without --teacher"):
        tool(tmp_path / 'out', '--teacher-path', 'weights.pth')
    (tmp_path / 'plain.py').write_text("model = dict(type='LatentDiffusionGenerator')")
    with pytest.raises(ValueError, match=r"config '.*plain\.py' has no model\.repa"):
        tool(tmp_path / 'out', '--teacher', tmp_path / 'plain.py')
    assert not (tmp_path / 'out').exists()
