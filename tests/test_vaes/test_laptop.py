"""The laptop's autoencoder, its start and its trainer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from usp_mm.vaes import build_codec
from usp_mm.vaes.encoder import take_encoder
from usp_mm.vaes.laptop import LaptopVAETraining, make_laptop_vae, start_from_components, train_laptop_vae

ROOT = Path(__file__).parents[2]
SHORT = LaptopVAETraining(steps=3, batch_size=4, lr=1e-6, size=32)


@pytest.fixture(scope='module')
def pictures() -> torch.Tensor:
    """Smooth ones, so that few components hold most of them."""
    coarse = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return F.interpolate(coarse, size=32, mode='bilinear')


@pytest.fixture(scope='module')
def folder(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of training."""
    out = tmp_path_factory.mktemp('laptop') / 'vae'
    train_laptop_vae(demo_data / 'imagenet', out, SHORT)
    return out


def linear_reconstruction(images: torch.Tensor, channels: int) -> torch.Tensor:
    """Of the principal components of 4 × 4 patches, computed with a singular value decomposition."""
    patches = F.unfold(images, 4, stride=4).transpose(1, 2)
    mean = patches.mean((0, 1))
    basis = torch.linalg.svd((patches - mean).reshape(-1, 48).double(), full_matrices=False)[2][:channels].float()
    return F.fold(((patches - mean) @ basis.T @ basis + mean).transpose(1, 2), images.shape[-1], 4, stride=4)


@torch.no_grad()
def test_it_starts_as_the_principal_components(pictures: torch.Tensor) -> None:
    vae = make_laptop_vae()
    start_from_components(vae, pictures)
    latents = vae.encode(pictures).latent
    assert latents.shape == (24, 4, 8, 8)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), rtol=1e-3, atol=0)
    best = linear_reconstruction(pictures, 4)
    lost = (best - pictures).square().mean()
    assert lost > 1e-3
    assert (vae.decode(latents).sample - best).square().mean() < 0.02 * lost


@torch.no_grad()
def test_images_of_one_colour_start_it_too() -> None:
    vae = make_laptop_vae()
    images = torch.full((2, 3, 16, 16), 0.25)
    start_from_components(vae, images)
    torch.testing.assert_close(vae.decode(vae.encode(images).latent).sample, images, rtol=0, atol=1e-3)


def test_seed_decides_the_weights_and_nothing_else() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first, again, other = (make_laptop_vae(seed).decoder.conv_in.weight for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_training_is_deterministic_and_says_its_scale(folder: Path, demo_data: Path, tmp_path: Path) -> None:
    report = train_laptop_vae(demo_data / 'imagenet', tmp_path / 'again', SHORT)
    codecs = [build_codec('laptop', path=path) for path in (folder, tmp_path / 'again')]
    assert codecs[0].weight_hash == codecs[1].weight_hash
    assert codecs[0].scale == report.scaling_factor
    assert report.psnr > 30  # the components alone: digits are smooth


def test_the_latents_have_no_spread(folder: Path) -> None:
    codec = build_codec('laptop', path=folder)
    images = torch.rand(2, 3, 32, 48) * 2 - 1
    moments = codec.encode(images)
    assert moments.shape == (2, 8, 8, 12)
    assert (moments[:, 4:] == -30).all()
    noise = torch.randn(2, 4, 8, 12)
    torch.testing.assert_close(codec.sample(moments, noise), codec.mode(moments), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="'laptop' has no encoder to train: name one with weights and a posterior"):
        take_encoder(codec)


def test_training_improves_on_the_components(tmp_path: Path) -> None:
    """Outlines on white, which few linear components describe badly."""
    generator = np.random.default_rng(0)
    (tmp_path / 'images').mkdir()
    for number in range(100):
        image = Image.new('RGB', (32, 32), 'white')
        for x, y, width, height in generator.integers(0, 24, (3, 4)).tolist():
            colour = tuple(generator.choice([0, 255], 3).tolist())
            ImageDraw.Draw(image).rectangle((x, y, x + width, y + height), outline=colour, width=2)
        image.save(tmp_path / 'images' / f'{number}.png')
    configs = LaptopVAETraining(steps=1, lr=1e-9, size=32), LaptopVAETraining(steps=100, size=32)
    linear, trained = (train_laptop_vae(tmp_path / 'images', tmp_path / str(c.steps), c).psnr for c in configs)
    assert 14 < linear < 16
    assert trained > linear + 1


def test_errors_come_before_training(demo_data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='size=30 must be a multiple of the stride, 4'):
        train_laptop_vae(demo_data, tmp_path / 'out', LaptopVAETraining(size=30))
    assert not (tmp_path / 'out').exists()


def test_other_folders_are_refused(folder: Path, tiny_vae_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a diffusers 'AutoencoderDC', but the codec reads an 'AutoencoderKL'"):
        build_codec('tiny', path=folder)
    with pytest.raises(ValueError, match="is a diffusers 'AutoencoderKL', but the codec reads an 'AutoencoderDC'"):
        build_codec('laptop', path=tiny_vae_folder)
    with pytest.raises(ValueError, match=r"'laptop' needs a path.*usp train-vae DATA OUT --vae laptop"):
        build_codec('laptop')
    with pytest.raises(FileNotFoundError, match=r'none does not exist: make it with `usp train-vae DATA OUT --vae laptop'):
        build_codec('laptop', path=tmp_path / 'none')


def test_configs_and_weights_that_do_not_fit(folder: Path, tmp_path: Path) -> None:
    spoiled = Path(shutil.copytree(folder, tmp_path / 'vae'))
    config = json.loads((folder / 'config.json').read_text())
    for key, value, message in (
        ('latent_channels', 8, "latent channels 8, but VAE 'laptop' has 4"),
        ('encoder_block_out_channels', [16, 64], "latent stride 2, but VAE 'laptop' has 4"),
    ):
        (spoiled / 'config.json').write_text(json.dumps(config | {key: value}))
        with pytest.raises(ValueError, match=message):
            build_codec('laptop', path=spoiled)
    shutil.copy(folder / 'config.json', spoiled)
    weights = spoiled / 'diffusion_pytorch_model.safetensors'
    save_file(load_file(weights) | {'decoder.extra': torch.zeros(1)}, weights, {'format': 'pt'})
    with pytest.raises(ValueError, match=r'1 unexpected \(decoder\.extra\)'):
        build_codec('laptop', path=spoiled)


def test_the_scale_comes_without_the_weights(folder: Path) -> None:
    codec = build_codec('laptop', path=folder, load_weights=False)
    assert codec.scale == build_codec('laptop', path=folder).scale
    assert codec.network is None


def test_the_tool_trains_it(demo_data: Path, tmp_path: Path, tool_here) -> None:
    data, tool = demo_data / 'imagenet/train', ROOT / 'tools/train_tiny_vae.py'
    options = ['--vae', 'laptop', '--steps', 2, '--batch-size', 2, '--size', 16]
    assert 'PSNR' in tool_here(tool, data, tmp_path / 'vae', *options)[1]
    assert build_codec('laptop', path=tmp_path / 'vae').channels == 4
    code, told = tool_here(tool, data, tmp_path / 'other', *options, '--kl-weight', 1)
    assert (code, '--kl-weight is not an option of --vae laptop' in told) == (2, True)
