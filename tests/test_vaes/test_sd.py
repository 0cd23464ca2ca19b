"""Folders in diffusers' format."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from helpers.vae_files import Bomb
from safetensors.torch import load_file, save_file

from usp_mm.vaes import build_codec
from usp_mm.vaes.tiny import make_tiny_vae, save_vae

WEIGHTS = 'diffusion_pytorch_model.safetensors'


@pytest.fixture
def folder(tmp_path: Path, tiny_vae_folder: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_vae_folder, tmp_path / 'vae'))


def edit_config(folder: Path, **changes: object) -> Path:
    config = json.loads((folder / 'config.json').read_text())
    merged = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / 'config.json').write_text(json.dumps(merged))
    return folder


def test_numbers_are_diffusers_own(tiny_vae_folder: Path) -> None:
    vae = AutoencoderKL.from_pretrained(tiny_vae_folder)
    codec = build_codec('tiny', path=tiny_vae_folder)
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
        moments = codec.encode(images)
        assert codec.scale == vae.config.scaling_factor == 0.5
        assert torch.equal(moments, posterior.parameters)
        assert torch.equal(codec.mode(moments), posterior.mode() * 0.5)
        draw = posterior.sample(torch.Generator().manual_seed(3))
        noise = torch.randn(draw.shape, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(codec.sample(moments, noise), draw * 0.5, rtol=0, atol=1e-6)
        assert torch.equal(codec.decode(draw * 0.5), vae.decode(draw).sample)


def test_a_whole_pipeline(tmp_path: Path, tiny_vae_folder: Path) -> None:
    shutil.copytree(tiny_vae_folder, tmp_path / 'vae')
    (tmp_path / 'model_index.json').write_text('{}')
    assert build_codec('tiny', path=tmp_path).weight_hash == build_codec('tiny', path=tiny_vae_folder).weight_hash


def test_weights_decide_the_hash(tmp_path: Path, tiny_vae_folder: Path) -> None:
    save_vae(make_tiny_vae(seed=1), tmp_path / 'other')
    codecs = [build_codec('tiny', path=path) for path in (tiny_vae_folder, tiny_vae_folder, tmp_path / 'other')]
    first, again, other = (codec.weight_hash for codec in codecs)
    assert first == again != other


def test_shift_of_the_config_is_used(folder: Path) -> None:
    codec = build_codec('tiny', path=edit_config(folder, shift_factor=0.25))
    moments = torch.ones(1, 8, 2, 2)
    assert torch.equal(codec.mode(moments), torch.full((1, 4, 2, 2), 0.375))


def test_scale_must_be_the_presets(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"scales latents by 0\.5 .*, but VAE 'sd-f8d4' by 0\.18215"):
        build_codec('sd-f8d4', path=folder)
    edit_config(folder, scaling_factor=None)  # stabilityai's files are older than the key
    assert build_codec('sd-f8d4', path=folder).scale == 0.18215


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(latent_channels=16), "latent channels 16, but VAE 'tiny' has 4"),
        (dict(block_out_channels=[8, 16, 32]), "latent stride 4, but VAE 'tiny' has 8"),
        (dict(_class_name='AutoencoderTiny'), "is a diffusers 'AutoencoderTiny', but the codec reads an 'AutoencoderKL'"),
        (dict(layers_per_block=2), r'does not fit its config\.json: \d+ missing \('),
        (dict(block_out_channels=[8, 16, 32, 32]), r'does not fit its config\.json: '),
    ],
)
def test_configs_that_do_not_fit(folder: Path, changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_codec('tiny', path=edit_config(folder, **changes))


def test_unexpected_weights(folder: Path) -> None:
    save_file(load_file(folder / WEIGHTS) | {'decoder.extra': torch.zeros(1)}, folder / WEIGHTS, {'format': 'pt'})
    with pytest.raises(ValueError, match=r'does not fit its config\.json: 1 unexpected \(decoder\.extra\): '):
        build_codec('tiny', path=folder)


@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_runs_code_is_refused(folder: Path, tmp_path: Path, zipped: bool) -> None:
    (folder / WEIGHTS).unlink()
    path = folder / 'diffusion_pytorch_model.bin'
    if zipped:
        torch.save({'encoder.conv_in.weight': Bomb(tmp_path / 'ran')}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(tmp_path / 'ran'), protocol=2))
    with pytest.raises(FileNotFoundError, match='no weights that can be read as data'):
        build_codec('tiny', path=folder)
    assert not (tmp_path / 'ran').exists()


def test_a_pickle_of_tensors_is_read(folder: Path, tiny_vae_folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / 'diffusion_pytorch_model.bin')
    (folder / WEIGHTS).unlink()
    assert build_codec('tiny', path=folder).weight_hash == build_codec('tiny', path=tiny_vae_folder).weight_hash


def test_missing_folders_say_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'a/b/c does not exist: .*`hf download stabilityai/sd-vae-ft-ema'):
        build_codec('sd-f8d4', path='a/b/c')
    with pytest.raises(FileNotFoundError, match=r"holds neither 'config\.json' nor 'vae/config\.json'.*usp train-vae"):
        build_codec('tiny', path=tmp_path)
    with pytest.raises(ValueError, match=r"'tiny' needs a path.*usp train-vae DATA OUT"):
        build_codec('tiny')
    (tmp_path / 'vae.ckpt').touch()
    with pytest.raises(ValueError, match='is a file, but a VAE of diffusers is a folder'):
        build_codec('sd-f8d4', path=tmp_path / 'vae.ckpt')


def test_a_hub_id_that_the_hub_does_not_give(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    with pytest.raises(FileNotFoundError, match=r'nobody/nothing is no folder here.*--local-dir DIR'):
        build_codec('sd-f8d4', path='nobody/nothing')
