import numpy as np
import pytest
import torch
from helpers.small_world import run_tool
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from usp_mm.apis import load_algorithm, restore_images
from usp_mm.functional.patchify import patchify

CONFIG = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'


@pytest.fixture(scope='module')
def trained(tiny_vae_folder, tmp_path_factory):
    """Config and checkpoint of an untrained digit model."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.data_preprocessor.vae.path = str(tiny_vae_folder)
    model = MODELS.build(cfg.model)
    model.init_weights()
    path = tmp_path_factory.mktemp('trained') / 'epoch_1.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return cfg, path


@pytest.mark.slow
def test_the_tool_writes_the_picture(trained, demo_data, tiny_vae_folder, tmp_path):
    _, checkpoint = trained
    options = ['--cfg-options', f'model.data_preprocessor.vae.path={tiny_vae_folder}']
    images = ['--images', demo_data / 'imagenet' / 'val', '--num', 3]
    out = ['--out', tmp_path / 'a' / 'picture.png', '--tensorboard', tmp_path / 'tb', '--prediction', 'raw']
    done = run_tool('tools/reconstruct.py', CONFIG, checkpoint, *images, *out, *options)
    assert done.returncode == 0, done.stderr
    title = 'original, masked, restored (raw predictions, not denormalized), VAE alone'
    assert f'3 rows of {title}' in done.stdout
    assert Image.open(tmp_path / 'a' / 'picture.png').text == {'Title': title}
    height, width, _ = np.asarray(Image.open(tmp_path / 'a' / 'picture.png')).shape
    assert width == 4 * 68 and 3 * 68 + 10 < height < 3 * 68 + 50  # the columns' titles
    assert list(tmp_path.glob('tb/**/events.out.tfevents.*'))

    missing = run_tool('tools/reconstruct.py', CONFIG, checkpoint, '--images', tmp_path / 'none', *options)
    assert missing.returncode == 1
    assert f"error: no image or folder at '{tmp_path}/none'" in missing.stderr


def test_columns_and_composite_rules(trained, demo_data):
    cfg, checkpoint = trained
    model = load_algorithm(cfg, checkpoint, device='cpu')
    image = sorted((demo_data / 'imagenet' / 'val' / '3').iterdir())[:1]
    predicted, visible = (restore_images(model, image, rule) for rule in ('predicted', 'visible'))
    cells = predicted.reshape(68, 4, 68, 3)[2:-2, :, 2:-2].swapaxes(0, 1)
    original, masked = cells[0], cells[1]
    np.testing.assert_array_equal(original, np.asarray(Image.open(image[0]).convert('RGB')))
    hidden = (masked != original).any(-1)
    assert 0.5 < hidden.mean() <= 0.75
    assert (masked[hidden] == 128).all()
    assert not np.array_equal(predicted[:, 136:204], visible[:, 136:204])
    np.testing.assert_array_equal(predicted[:, :136], visible[:, :136])
    assert restore_images(model, image, 'predicted', seed=1).tolist() != predicted.tolist()


def test_raw_predictions_are_those_of_the_network(trained, demo_data):
    cfg, checkpoint = trained
    model = load_algorithm(cfg, checkpoint, device='cpu')
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3 + 1
    raw, mask = model.reconstruct(latents, denormalize=False)
    restored, same = model.reconstruct(latents)
    assert torch.equal(mask, same)
    patches, truth = (patchify(x, 2) for x in (raw, latents))
    mean, std = truth.mean(-1, keepdim=True), (truth.var(-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(patchify(restored, 2), patches * std + mean, rtol=1e-5, atol=1e-5)
    image = sorted((demo_data / 'imagenet' / 'val' / '3').iterdir())[:1]
    drawn, plain = restore_images(model, image, denormalize=False), restore_images(model, image)
    assert not np.array_equal(drawn[:, 136:204], plain[:, 136:204])
    np.testing.assert_array_equal(drawn[:, :136], plain[:, :136])


def test_bad_arguments(trained, tmp_path):
    cfg, checkpoint = trained
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        load_algorithm(cfg, tmp_path / 'nothing.pth')
    other = Config.fromfile(CONFIG)
    other.model.data_preprocessor.vae.path = cfg.model.data_preprocessor.vae.path
    other.model.backbone.arch = dict(depth=1, embed_dims=128, num_heads=4, decoder_dims=64, decoder_depth=2, decoder_heads=4)
    with pytest.raises(ValueError, match=r'(?s)does not fit the config.*blocks\.1'):
        load_algorithm(other, checkpoint)


def test_config_and_checkpoint_are_read_once(trained, demo_data, tiny_vae_folder, tmp_path, tool_here, counts):
    options = ['--cfg-options', f'model.data_preprocessor.vae.path={tiny_vae_folder}']
    words = [CONFIG, trained[1], '--images', demo_data / 'imagenet' / 'val', '--num', 1, '--out', tmp_path / 'a.png']
    assert tool_here('tools/reconstruct.py', *words, *options)[0] == 0
    assert counts == {'checks': 1, 'epoch_1.pth': 1}
