"""`usp export`: a model folder from a config and a checkpoint, and the three lines of the README."""

import re

import pytest
import torch
from helpers.small_world import ROOT, run_tool
from helpers.trained_files import picture, small_config, trained
from safetensors.torch import load_file

import usp_mm
from usp_mm.fileio.weights import read_weights


@pytest.fixture
def export(monkeypatch, capsys):
    """Run `usp export` in this process."""
    from usp_mm.cli.main import main

    def run(*words):
        monkeypatch.setattr('sys.argv', ['usp', 'export', *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.err if end.value.code else printed.out

    return run


@pytest.mark.slow
def test_a_config_and_a_checkpoint_become_a_folder(tmp_path, tiny_vae_folder):
    """As a command, once."""
    checkpoint = trained('generator', tiny_vae_folder, tmp_path / 'iter_9.pth')
    small_config('generator', tiny_vae_folder).dump(tmp_path / 'config.py')
    words = ['-c', 'from usp_mm.cli.main import main; main()']
    found = run_tool(
        *words, 'export', tmp_path / 'config.py', checkpoint, tmp_path / 'out', '--weights', 'model', '--license', 'mit',
        '--number', 'FD=1.5',
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert f"usp_mm.from_pretrained('{tmp_path / 'out'}')" in found.stdout
    kept, state = load_file(tmp_path / 'out' / 'model.safetensors'), read_weights(checkpoint)
    assert all(torch.equal(value, state[name]) for name, value in kept.items()) and len(kept) * 2 + 1 == len(state)
    assert '| FD | 1.5 |' in (tmp_path / 'out' / 'README.md').read_text()


def test_the_config_in_a_checkpoint_is_enough(export, tmp_path, tiny_vae_folder):
    checkpoint = trained('pretraining', tiny_vae_folder, tmp_path / 'epoch_3.pth')
    code, printed = export(checkpoint, tmp_path / 'out', '--name', 'me/mine')
    assert code == 0, printed
    assert usp_mm.from_pretrained(tmp_path / 'out', device='cpu').img_size == 64
    assert "usp_mm.from_pretrained('me/mine')" in (tmp_path / 'out' / 'README.md').read_text()
    code, printed = export(checkpoint, tmp_path / 'out')
    assert (code, printed.startswith(f"error: '{tmp_path / 'out'}' exists and is not an empty folder")) == (1, True)


@pytest.mark.parametrize(
    ('words', 'told', 'expected'),
    [
        (['a.pth'], 'give [CONFIG] CHECKPOINT OUT, got 1 words', 2),
        (['absent/x/a.pth.zip', 'out', '--number', 'x'], "--number: 'x' is no WHAT=VALUE", 2),
        (['/absent/a.pth', 'out'], "error: '/absent/a.pth' is no file or folder here", 1),
    ],
)
def test_what_cant_be_exported(export, words, told, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, printed = export(*words)
    assert code == expected and told in printed and not (tmp_path / 'out').exists()


def test_the_three_lines_of_the_readme(tmp_path, tiny_vae_folder, monkeypatch):
    """Word for word, on small folders with the names that it has."""
    text = (ROOT / 'README.md').read_text().split('## Three lines of Python')[1].split('\n## ')[0]
    code = re.search(r'```python\n(.*?)```', text, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    for kind, folder in (('pretraining', 'my-encoder'), ('generator', 'my-generator')):
        usp_mm.from_pretrained(trained(kind, tiny_vae_folder, tmp_path / 'a.pth'), device='cpu').save_pretrained(folder)
    for name in ('cat.jpg', 'dog.jpg'):
        picture(tmp_path / name)
    found: dict = {}
    exec(code, found)  # noqa: S102
    assert found['features'].shape == (2, 32) and found['pictures'][0].size == (64, 64)
    assert found['restored'].size == (64, 64)


def test_a_pipeline_of_diffusers(export, tmp_path, tiny_vae_folder):
    words = [trained('generator', tiny_vae_folder, tmp_path / 'sit.pth'), tmp_path / 'out', '--diffusers']
    code, told = export(*words, '--no-include-vae')
    assert (code, told) == (0, f'{tmp_path / "out"}: model_index.json, pipeline.py, transformer\n')
    code, told = export(*words)
    assert code == 1 and 'exists and is not an empty folder' in told
    code, told = export(trained('pretraining', tiny_vae_folder, tmp_path / 'usp.pth'), tmp_path / 'other', '--diffusers')
    assert code == 1 and 'is no DiT or SiT' in told and not (tmp_path / 'other').exists()
    code, told = export(*words, '--license', 'mit')
    assert code == 2 and '--license is of a model card' in told


def test_a_config_without_the_options_of_the_training_is_named(export, tmp_path, tiny_vae_folder, logged_lines):
    """What does not fit is refused, what loads is told; the same --cfg-options, or no config at all, leave nothing to tell."""
    checkpoint = trained('diffusion', tiny_vae_folder, tmp_path / 'iter_9.pth')
    cfg = small_config('diffusion', tiny_vae_folder)
    cfg.model.denoiser.update(img_size=32)
    cfg.dump(tmp_path / 'other.py')
    code, printed = export(tmp_path / 'other.py', checkpoint, tmp_path / 'a')
    size = small_config('diffusion', tiny_vae_folder).model.denoiser.img_size
    told = (
        f'it was trained with model.denoiser.img_size={size} (here 32): leave the config out, and the one that the checkpoint'
    )
    assert code == 1 and told in printed and 'does not fit' in printed
    cfg.model.denoiser.update(img_size=size)
    cfg.model.sampler.num_steps = 7
    cfg.dump(tmp_path / 'other.py')
    code, _ = export(tmp_path / 'other.py', checkpoint, tmp_path / 'b')
    assert code == 0 and 'model.sampler.num_steps=3 (here 7)' in logged_lines[-1][1]
    logged_lines.clear()
    code, _ = export(tmp_path / 'other.py', checkpoint, tmp_path / 'c', '--cfg-options', 'model.sampler.num_steps=3')
    assert code == 0 and not [line for _, line in logged_lines if 'the config applies' in line]
    code, _ = export(checkpoint, tmp_path / 'd')
    assert code == 0 and 'num_steps=3' in (tmp_path / 'd' / 'config.py').read_text().replace("'num_steps': ", 'num_steps=')
