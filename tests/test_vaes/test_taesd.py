"""TAESD in diffusers' format: from a folder, from the hub, and what is not one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.hub_server import HubServer, local_hub
from helpers.vae_files import small_taesd

from usp_mm.own_pictures.vae_choice import find_vae
from usp_mm.presets import VAES
from usp_mm.vaes import build_codec
from usp_mm.vaes.base import LOGVAR_MIN
from usp_mm.vaes.shapes import blank_codec
from usp_mm.vaes.tiny import save_vae


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_vae(small_taesd(), tmp_path / 'web' / 'madebyollin' / 'taesd')
    return tmp_path / 'web' / 'madebyollin' / 'taesd'


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with local_hub(tmp_path / 'web', tmp_path / 'cache', monkeypatch) as server:
        yield server


@torch.no_grad()
def test_latents_are_diffusers_own_without_a_scale(folder: Path) -> None:
    codec, network = build_codec('taesd', path=folder), small_taesd().eval()
    images = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moments, expected = codec.encode(images), network.encode(images).latents
    assert moments.shape == (2, 8, 4, 6) and torch.equal(moments[:, :4], expected)
    assert (moments[:, 4:] == LOGVAR_MIN).all() and torch.equal(codec.mode(moments), expected)
    assert torch.equal(codec.decode(expected), network.decode(expected).sample)


def test_it_comes_from_its_address_on_the_hub(hub: HubServer, folder: Path) -> None:
    assert VAES['taesd']['source'] == 'madebyollin/taesd'
    codec = build_codec('taesd')
    assert any(path.startswith('/madebyollin/taesd/resolve/') for path in hub.asked)
    assert codec.weight_hash == build_codec('taesd', path=folder).weight_hash


def test_usp_train_takes_the_name_and_the_folder(folder: Path) -> None:
    assert find_vae('taesd') == ('taesd', None)
    assert find_vae(str(folder)) == ('taesd', str(folder.resolve()))


def test_another_one_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a diffusers 'AutoencoderTiny', but the codec reads an 'AutoencoderKL'"):
        build_codec('sd-f8d4', path=folder)
    config = json.loads((folder / 'config.json').read_text())
    for change, told in (
        (dict(latent_channels=16), "has latent channels 16, but VAE 'taesd' has 4"),
        (dict(scaling_factor=0.5), "scales latents by 0.5 .* but VAE 'taesd' by 1.0"),
    ):
        (folder / 'config.json').write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=told):
            build_codec('taesd', path=folder)


def test_its_published_size() -> None:
    """1.22 million weights in each half, as in the published files of 4.9 MB."""
    network = blank_codec('taesd').network
    sizes = [sum(weight.numel() for weight in half.parameters()) for half in (network.encoder, network.decoder)]
    assert [round(size / 1e6, 2) for size in sizes] == [1.22, 1.22]
