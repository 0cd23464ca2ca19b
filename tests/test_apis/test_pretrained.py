"""Model folders, encoders and generators: what is loaded is what was trained."""

import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.trained_files import DIGITS, KINDS, load, pixels, small_config
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file

import usp_mm
from usp_mm.apis import Generator, load_algorithm, load_generator, restore_images, sample_classes
from usp_mm.apis.config_data import parse_config
from usp_mm.apis.inference import image_config, inferencer
from usp_mm.apis.predictions import classify_images
from usp_mm.apis.sources import HERE
from usp_mm.fileio.weights import read_weights
from usp_mm.probing.features import block_features

# ---------------------------------------------------------------------- folders


@pytest.mark.parametrize('kind', KINDS)
def test_a_folder_holds_config_weights_facts_and_card(folders, files, kind):
    folder = folders[kind]
    assert {path.name for path in folder.iterdir()} == {
        'README.md', 'config.py', 'model.safetensors', 'run_info.json', 'vae'
    }  # fmt: skip
    info = json.loads((folder / 'run_info.json').read_text())
    assert (info['epoch'], info['iter'], info['classes'], info['vae']['name']) == (3, 9, list(DIGITS), 'tiny')
    assert (info['checkpoint'], info['versions']['usp_mm']) == (f'{kind}.pth', usp_mm.__version__)
    assert len(info['weights_sha256']) == len(info['checkpoint_sha256']) == 64
    assert info.get('weights') == ('ema' if kind in ('generator', 'diffusion') else None)
    card = (folder / 'README.md').read_text()
    assert card.startswith('---\n') and 'library_name: usp_mm' in card and "usp_mm.from_pretrained('" in card
    assert 'Preset `tiny`' in card and 'a licence of its own' not in card and info['weights_sha256'] in card
    assert (
        parse_config((folder / 'config.py').read_text(), folder)['model']['data_preprocessor']['vae']['path'] == f'{HERE}/vae'
    )


def test_configs_in_files_of_older_versions(files, folders, tmp_path):
    """The VAE's path and dtype were keys of the data preprocessor."""
    enc = load(files['pretraining'])
    vae = enc.source.cfg['model']['data_preprocessor']['vae']
    content = torch.load(files['pretraining'], weights_only=False)
    cfg = Config.fromstring(content['meta']['cfg'], '.py')
    del cfg.model.data_preprocessor['vae']
    cfg.model.data_preprocessor.update(vae='tiny', vae_path=vae['path'], vae_dtype='bfloat16')
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'older.pth')
    shutil.copytree(folders['pretraining'], tmp_path / 'folder')
    text = cfg.pretty_text.replace(vae['path'], f'{HERE}/vae')
    (tmp_path / 'folder' / 'config.py').write_text(text)
    for source in ('older.pth', 'folder'):
        with warnings.catch_warnings():
            warnings.simplefilter('error', FutureWarning)
            older = usp_mm.from_pretrained(tmp_path / source, device='cpu')
        codec = older.model.data_preprocessor.codec
        assert (codec.name, codec.dtype) == ('tiny', torch.bfloat16)
        assert codec.network is not None


def test_of_a_generators_weights_those_asked_for_are_kept(files, tmp_path):
    state = read_weights(files['generator'])
    for weights, prefix in (('ema', 'denoiser_ema.module.'), ('model', 'denoiser.')):
        load(files['generator'], weights=weights).save_pretrained(tmp_path / weights)
        kept = load_file(tmp_path / weights / 'model.safetensors')
        assert all(name.startswith('denoiser.') for name in kept)
        for name, value in kept.items():
            assert torch.equal(value, state[prefix + name.removeprefix('denoiser.')]), name
    load(files['generator'], weights='both').save_pretrained(tmp_path / 'both')
    assert load_file(tmp_path / 'both' / 'model.safetensors').keys() == state.keys()
    pair = [pixels(load(tmp_path / 'both', weights=which).sample([1])) for which in ('ema', 'model')]
    assert np.array_equal(pair[0], pixels(load(tmp_path / 'ema').sample([1])))
    assert not np.array_equal(*pair)
    with pytest.raises(ValueError, match=r"weights='model': '.*ema' has one set of weights \(ema\), leave it out"):
        load(tmp_path / 'ema', weights='model')


def test_a_saved_folder_gives_the_same_numbers_wherever_it_lies(folders, files, tmp_path, monkeypatch):
    moved = tmp_path / "it's moved"
    subprocess.run(['cp', '-r', folders['pretraining'], moved], check=True)
    monkeypatch.chdir(tmp_path)
    first, second = load(files['pretraining']), load(moved.name)
    assert torch.equal(first.encode(files['picture']), second.encode(files['picture']))
    second.save_pretrained('again', numbers={'top-1': 98.5}, picture=files['picture'], license='mit', repo_id='me/mine')
    assert torch.equal(load('again').encode(files['picture']), first.encode(files['picture']))
    card = Path('again', 'README.md').read_text()
    assert 'license: mit' in card and '| top-1 | 98.5 |' in card and '(picture.png)' in card
    assert "from_pretrained('me/mine')" in card and Path('again', 'picture.png').is_file()
    assert json.loads(Path('again/run_info.json').read_text())['checkpoint'] == 'pretraining.pth'


def test_the_tools_take_a_folders_files(folders, files):
    enc = load(folders['pretraining'])
    cfg = Config.fromfile(folders['pretraining'] / 'config.py')
    model = load_algorithm(cfg, folders['pretraining'] / 'model.safetensors', device='cpu')
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(block_features(model.backbone, latents, [2])[0], enc.encode(latents))


def test_a_folder_is_whole_or_absent(files, tmp_path, monkeypatch):
    enc = load(files['pretraining'])
    (tmp_path / 'full').mkdir()
    (tmp_path / 'full' / 'a').touch()
    with pytest.raises(FileExistsError, match="full' exists and is not an empty folder: choose another name"):
        enc.save_pretrained(tmp_path / 'full')
    monkeypatch.setattr('usp_mm.apis.model_folder.model_card', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        enc.save_pretrained(tmp_path / 'new')
    assert [path.name for path in tmp_path.iterdir()] == ['full']


# ---------------------------------------------------------------------- encoders


def test_features_are_those_of_the_probes(files):
    enc = load(files['pretraining'])
    model = load_algorithm(small_config('pretraining', enc.source.cfg['model']['data_preprocessor']['vae']['path']),
                           files['pretraining'], 'cpu')  # fmt: skip
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    for pool in ('mean', 'cls'):
        expected = block_features(model.backbone, latents, [1, 2], pool=pool)
        for found, wanted in zip(enc.encode(latents, layer=[1, 2], pool=pool, batch_size=2), expected, strict=True):
            torch.testing.assert_close(found, wanted)
    tokens = enc.encode(latents, pool=None)
    assert tokens.shape == (3, 17, 32)
    assert torch.equal(tokens[:, 1:].mean(1), enc.encode(latents)) and torch.equal(
        tokens[:, 0], enc.encode(latents, pool='cls')
    )


@pytest.mark.parametrize('kind', ['pretraining', 'classifier'])
def test_a_picture_in_any_form_gives_the_same_features(files, kind):
    enc, image = load(files[kind]), Image.open(files['picture'])
    forms = [files['picture'], str(files['picture']), image, np.asarray(image)]
    several = enc.encode(forms)
    assert several.shape == (4, 32) and several.dtype == torch.float32
    for form in forms:
        assert torch.equal(enc.encode(form), enc.encode(files['picture']))
    torch.testing.assert_close(several, enc.encode(files['picture']).expand(4, -1))
    small = torch.tensor(np.array(image.resize((64, 64)))).permute(2, 0, 1)[None]
    assert torch.equal(enc.encode(small), enc.encode(np.asarray(image.resize((64, 64)))))
    torch.testing.assert_close(enc.encode(small.float() / 255), enc.encode(small))
    assert torch.equal(enc.encode([small[0], small[0]])[1:], enc.encode(torch.cat([small, small]))[1:])
    grey = image.convert('L')
    assert torch.equal(enc.encode(np.asarray(grey)), enc.encode(grey))
    assert not torch.equal(enc.encode(grey), enc.encode(image))


@pytest.mark.parametrize(
    ('images', 'told'),
    [
        ([], 'no images'),
        (np.zeros((4, 4, 3)), r'float64\[4, 4, 3\] is no picture: expected a file'),
        (np.zeros((4, 4)), r'float64\[4, 4\] is no picture'),
        (np.zeros((2, 4, 4), np.uint8), r'uint8\[2, 4, 4\] is no picture'),
        ([3], 'a int is no picture'),
        ([np.zeros((4, 4), np.uint8), 3], r'^images\[1\]: a int is no picture'),
        (None, '^images=None: expected a file, a PIL image'),
        (b'pixels', '^images: a bytes is no picture'),
        ([torch.zeros(3, 64, 64), torch.zeros(3, 32, 64)], r'tensors \[3, 64, 64\] .* and \[3, 32, 64\] .*one shape'),
        ([torch.zeros(64, 64)], r'a tensor \[1, 64, 64\]: expected'),
        (torch.zeros(3, 64, 64), r'a tensor \[3, 64, 64\]: expected \[N, 3, H, W\] \(images\) or \[N, 4, h, w\] \(latents\)'),
        (torch.full((1, 3, 64, 64), 200.0), 'from 200.0 to 200.0: expected uint8, or floats from 0 to 1'),
        (Image.new('I;16', (64, 64)), "mode 'I;16': convert it to 'RGB'"),
        ('absent.png', 'absent.png'),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(files, images, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        load(files['pretraining']).encode(images)


@pytest.mark.parametrize('cut', ['text', 'half'])
def test_pictures_that_cannot_be_read_are_named(files, tmp_path, cut):
    content = files['picture'].read_bytes()
    (tmp_path / 'bad.png').write_bytes(b'hello' if cut == 'text' else content[: len(content) // 2])
    enc = load(files['pretraining'])
    with pytest.raises(ValueError, match=r"cannot decode image '.*bad.png': (?!.*BytesIO)"):
        enc.encode([files['picture'], tmp_path / 'bad.png'])
    if cut == 'half':
        with pytest.raises(ValueError, match=r'^images\[1\]: .*truncated'):
            enc.encode([Image.open(files['picture']), Image.open(tmp_path / 'bad.png')])


@pytest.mark.parametrize('value', [0, -1, 1.5, None, True, '2'])
def test_counts_and_seeds_that_are_none(files, value):
    enc, gen = load(files['classifier']), load(files['generator'])
    count = f'={value!r} must be a whole number, 1 or more'
    for name, call in (('batch_size', enc.encode), ('batch_size', enc.attention), ('topk', enc.classify)):
        with pytest.raises(ValueError, match=re.escape(name + count)):
            call(files['picture'], **{name: value})
    for name in ('batch_size', 'per_class', *(() if value is None else ('steps',))):
        with pytest.raises(ValueError, match=re.escape(name + count)):
            gen.sample([3], **{name: value})
    with pytest.raises(ValueError, match=re.escape('frames' + count)):
        gen.trajectory([3], frames=value)
    if value != 0:
        for call in (gen.sample, gen.trajectory, load(files['pretraining']).restore):
            with pytest.raises(ValueError, match=re.escape(f'seed={value!r} must be a whole number from 0 to')):
                call(3, seed=value)


@pytest.mark.parametrize('classes', [[3.5], 3.5, [None], None, [[3]]])
def test_classes_that_are_none(files, classes):
    with pytest.raises(ValueError, match=r'^class (3.5|None|\[3\]): expected a whole number or a name'):
        load(files['generator']).sample(classes)


def test_numbers_of_numpy_are_numbers(files):
    enc, gen = load(files['pretraining']), load(files['generator'])
    both = enc.encode(files['picture'], layer=np.array([1, 2]), batch_size=np.int64(2))
    assert torch.equal(both[0], enc.encode(files['picture'], layer=1)) and len(both) == 2
    assert np.array_equal(pixels(gen.sample(np.int64(3), seed=np.int64(1))), pixels(gen.sample(3, seed=1)))


def test_layers_and_pools_that_there_are_not(files):
    enc = load(files['pretraining'])
    with pytest.raises(ValueError, match='layer 3 is not there: the model has blocks 1 to 2'):
        enc.encode(files['picture'], layer=3)
    with pytest.raises(ValueError, match=r'layer 1.5 is not there: the model has blocks 1 to 2'):
        enc.encode(files['picture'], layer=1.5)
    with pytest.raises(ValueError, match="pool='max' must be one of"):
        enc.encode(files['picture'], pool='max')


def test_restored_pictures_are_those_of_the_tool(files):
    """Of its row: original, masked, restored, VAE alone, each framed by 2 pixels."""
    enc = load(files['pretraining'])
    found = enc.restore(files['picture'], seed=5)
    row = restore_images(enc.model, [files['picture']], seed=5)
    _, masked, restored, alone = (row[2:66, 68 * i + 2 : 68 * i + 66] for i in range(4))
    assert np.array_equal(np.asarray(found.picture), restored) and np.array_equal(np.asarray(found.vae), alone)
    hidden = np.asarray(found.mask) == 255
    assert hidden.mean() == 0.75 and set(np.unique(masked[hidden])) <= {127, 128}
    picture, mask, vae = enc.restore(files['picture'], mask_ratio=0.5, seed=1)
    assert (np.asarray(mask) == 255).mean() == 0.5 and picture.size == mask.size == vae.size == (64, 64)
    with pytest.raises(ValueError, match=r'mask_ratio=1.5 must lie between 0 and 1'):
        enc.restore(files['picture'], mask_ratio=1.5)
    with pytest.raises(ValueError, match='restore takes one picture, got 2'):
        enc.restore([files['picture'], files['other']])


def test_classes_are_those_of_the_inferencer(files, tiny_vae_folder):
    enc = load(files['classifier'])
    paths = [files['picture'], files['other']]
    infer = inferencer(image_config(small_config('classifier', tiny_vae_folder)), files['classifier'], device='cpu')
    found = enc.classify(paths, topk=3)
    for ours, theirs in zip(found, classify_images(infer, paths, top=3), strict=True):
        assert [(x['label'], x['class']) for x in ours] == [(x['label'], x['class']) for x in theirs['top']]
        np.testing.assert_allclose([x['score'] for x in ours], [x['score'] for x in theirs['top']], rtol=1e-5)
    assert found[0][0]['class'] in DIGITS and len(found[0]) == 3
    assert enc.classifier is enc.model.head and enc.classes == DIGITS
    assert len(enc.classify(files['picture'], topk=99)[0]) == 10


def test_what_a_model_has_not_is_said(files):
    with pytest.raises(ValueError, match='has no classifier: encode'):
        load(files['pretraining']).classify(files['picture'])
    with pytest.raises(ValueError, match='has no decoder: only pretraining checkpoints'):
        load(files['classifier']).restore(files['picture'])
    assert load(files['pretraining']).classifier is None


# ---------------------------------------------------------------------- generators


@pytest.mark.parametrize('kind', ['generator', 'diffusion'])
def test_samples_are_those_of_the_tool(files, folders, tiny_vae_folder, kind):
    model = load_generator(small_config(kind, tiny_vae_folder), files[kind], device='cpu')
    rows = sample_classes(model, ['three', 7], per_class=1, seed=2)
    gen = load(folders[kind])
    assert isinstance(gen, Generator)
    found = gen.sample(['three', 7], seed=2)
    assert np.array_equal(pixels(found), np.concatenate(rows))
    frames = gen.trajectory('three', seed=2, frames=3)
    assert len(frames) == 3 and np.array_equal(np.asarray(frames[-1][0]), rows[0][0])


def test_guidance_and_steps_are_of_one_call(files, tiny_vae_folder):
    gen = load(files['generator'])
    before = pixels(gen.sample([3]))
    options = {'model.guidance.scale': 4, 'model.sampler.num_steps': 5}
    model = load_generator(small_config('generator', tiny_vae_folder), files['generator'], 'cpu', options)
    found = pixels(gen.sample([3], guidance=4, steps=5))
    assert np.array_equal(found, sample_classes(model, [3], 1)[0]) and not np.array_equal(found, before)
    assert np.array_equal(pixels(gen.sample(3)), before)
    with pytest.raises(ValueError, match="unknown class 'ten'"):
        gen.sample('ten')
    with pytest.raises(ValueError, match='guidance scale=-1'):
        gen.sample(3, guidance=-1)
    assert np.array_equal(pixels(gen.sample(3)), before)
