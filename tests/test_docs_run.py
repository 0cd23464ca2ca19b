"""Blocks of the pages, run: word for word but for sizes, which are a toy's."""

import shutil

import pytest
import torch
from helpers.doc_blocks import blocks, commands
from helpers.trained_files import picture
from mmengine.config import Config

from usp_mm.cli.main import main
from usp_mm.config.lookup import find_config


@pytest.fixture
def usp(monkeypatch, capsys):
    """Run `usp WORDS` in this process."""

    def run(words):
        monkeypatch.setattr('sys.argv', words)
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code, f'{words}: {end.value.code} {capsys.readouterr().err}'

    return run


@pytest.mark.slow
def test_the_stages_by_hand(tmp_path, demo_data, usp, monkeypatch):
    """On 40 digits in place of emoji, for 2 steps of the VAE and 13 epochs of pretraining; ends with the model in Python."""
    stages, share = [block for block in blocks('docs/get-started.md') if block.text.startswith('usp ')]
    (code,) = [block for block in blocks('docs/get-started.md') if block.language == 'python']
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_data, 'data/emoji')
    more = {'train-vae': ['--steps', '2'], 'train': ['train_dataloader.batch_size=16', 'train_cfg.max_epochs=13']}
    ran = []
    for words in [*commands(stages), *commands(share)]:
        words = [word.replace('epoch_80', 'epoch_13') for word in words]
        ran.append(words[1])
        if words[1] != 'demo-data':
            usp([*words, *more.get(words[1], [])])
    assert ran == ['demo-data', 'train-vae', 'cache', 'train', 'reconstruct', 'export']
    assert (tmp_path / 'restoration.png').is_file()
    for name in ('cat.jpg', 'dog.jpg'):
        picture(tmp_path / name)
    found: dict = {}
    exec(code.text, found)  # noqa: S102
    assert found['features'].shape == (2, 128)


@pytest.mark.slow
def test_the_digits_that_the_configs_read(tmp_path, demo_data, usp, monkeypatch):
    """On 40 digits, for 2 steps of the VAE: what the commands make is where the configs look, and pretraining runs on it."""
    make, use = [block for block in blocks('docs/demo-data.md') if 'work_dirs/quickstart' in block.text]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_data, 'work_dirs/quickstart/data')
    first, vae, *caches = commands(make)
    assert first == ['usp', 'demo-data', 'work_dirs/quickstart/data']
    usp([*vae, '--steps', '2'])
    for words in caches:
        usp([*words, '--workers', '0'])
    train = next(commands(use))
    short = ['train_cfg.max_epochs=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'train_dataloader.batch_size=16']
    usp([*train, '--cfg-options', *short])
    assert (tmp_path / 'work_dirs/digits-usp/epoch_2.pth').is_file()
    data = Config.fromfile(find_config('vit-tiny_usp-pre_1xb64-coslr-10e_digits'))
    for split in ('train', 'val'):
        assert (tmp_path / data[f'{split}_dataloader'].dataset.data_root / 'manifest.json').is_file()


def test_the_docstring_in_contributing():
    """Its example is the docstring of the function, as it is in the package, with the same shapes."""
    from usp_mm.functional.masking import Mask, mask_from_noise

    (block,) = [block for block in blocks('CONTRIBUTING.md') if block.language == 'python']
    found: dict = dict(Tensor=torch.Tensor, Mask=Mask)
    exec(block.text, found)  # noqa: S102
    assert found['mask_from_noise'].__annotations__ == mask_from_noise.__annotations__
