"""Every entry point reads safetensors, and refuses what is broken, runs code or is another network, in one line."""

import functools
import pickle
import re
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from helpers.checkpoint_files import ARCH, build, cfg_of, official
from helpers.hub_server import local_hub
from helpers.vae_files import GOLDEN_KL16, Bomb, kl_weights
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, Runner, load_checkpoint
from mmpretrain.registry import MODELS
from mmseg.apis import MMSegInferencer
from safetensors.torch import save_file

from usp_mm.apis.inference import inferencer
from usp_mm.apis.restoration import load_algorithm
from usp_mm.checkpoints import convert
from usp_mm.engine import CheckpointMatchHook
from usp_mm.evaluation.extractors import TimmFeatures
from usp_mm.fileio.weights import read_checkpoint, read_weights
from usp_mm.probing.features import load_frozen
from usp_mm.sampling.draw import load_generator
from usp_mm.vaes import build_codec


@functools.cache
def pretrained():
    """A model to load into, the same one every time."""
    return build('usp-pretrain')


def load_from(path, vae):
    """What `load_from` and tools/test.py do."""
    runner = Runner.__new__(Runner)
    runner.__dict__.update(model=pretrained(), _hooks=[CheckpointMatchHook()], _train_loop=None, _resume=False)
    runner.logger = SimpleNamespace(warning=print, info=print)
    runner.load_checkpoint(str(path), map_location='cpu')
    return runner.model


def init_cfg(path, vae):
    network = dict(type='USPViT', arch=ARCH, img_size=64, init_cfg=dict(type='USPPretrained', checkpoint=str(path)))
    model = MODELS.build(network)
    model.init_weights()
    return model


def config(kind, vae):
    cfg = cfg_of(kind)
    cfg['data_preprocessor'] = dict(type='LatentDataPreprocessor', vae=dict(name='tiny', path=str(vae)))
    images = dict(type='ImageFolder', data_root='', pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    return Config(dict(model=cfg, test_dataloader=dict(dataset=images)))


ENTRIES = {
    'convert': lambda path, vae: convert(path, path.with_name('out.pth')),
    'init_cfg': init_cfg,
    'load_from': load_from,
    'mmengine': lambda path, vae: load_checkpoint(pretrained(), str(path), map_location='cpu', strict=True),
    'tools/reconstruct.py': lambda path, vae: load_algorithm(config('usp-pretrain', vae), path, 'cpu'),
    'tools/sample.py': lambda path, vae: load_generator(config('dit', vae), path, 'cpu'),
    'tools/infer.py': lambda path, vae: inferencer(config('timm', vae), path, device='cpu'),
    'tools/knn.py': lambda path, vae: load_frozen(config('usp-pretrain', vae), path, load_vae=False, device='cpu'),
    'tools/evaluate.py': lambda path, vae: TimmFeatures('test_vit', path),
    'vae.path': lambda path, vae: build_codec('kl-f16d16', path=path),
}


def bombs(folder, target):
    """Files whose reading as code would create `target`."""
    torch.save({'state_dict': Bomb(target)}, folder / 'zip.pth')
    torch.save({'state_dict': {'a': Bomb(target)}}, folder / 'old.pth', _use_new_zipfile_serialization=False)
    (folder / 'raw.pth').write_bytes(pickle.dumps(Bomb(target), protocol=2))
    (folder / 'new.pth').write_bytes(pickle.dumps(Bomb(target), protocol=4))
    return [folder / f'{name}.pth' for name in ('zip', 'old', 'raw', 'new')]


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
@pytest.mark.parametrize('entry', ENTRIES)
def test_code_is_refused_and_never_runs(entry, tmp_path, tiny_vae_folder):
    target = tmp_path / 'ran'
    for path in bombs(tmp_path, target):
        with pytest.raises(ValueError, match=rf'{path.name} .*which is refused') as error:
            ENTRIES[entry](path, tiny_vae_folder)
        assert '\n' not in str(error.value)
        assert not target.exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    torch.load(tmp_path / 'zip.pth', weights_only=False)
    assert target.exists()  # so the files are what they claim to be


@pytest.mark.parametrize('entry', ENTRIES)
def test_broken_files(entry, tmp_path, tiny_vae_folder):
    state = pretrained().state_dict()
    torch.save(dict(state_dict=state), tmp_path / 'whole.pth')
    torch.save(dict(state_dict=state), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / 'whole.safetensors')
    for name in ('whole.pth', 'old.pth', 'whole.safetensors'):
        data, path = (tmp_path / name).read_bytes(), tmp_path / name
        for size in (0, 1000, len(data) - 100):
            path.write_bytes(data[:size])
            with pytest.raises(ValueError, match=rf'{name} is broken') as error:
                ENTRIES[entry](path, tiny_vae_folder)
            assert '\n' not in str(error.value)


def test_a_file_is_told_broken_wherever_it_ends(tmp_path):
    """torch seeks before the start of some."""
    path = tmp_path / 'cut.pth'
    torch.save(dict(model={str(i): torch.ones(8, 8) for i in range(12)}), path)
    data = path.read_bytes()
    for size in range(0, len(data), 97):
        path.write_bytes(data[:size])
        for mmap in (False, True):
            with pytest.raises(ValueError, match=r'cut\.pth is broken'):
                read_checkpoint(path, mmap=mmap)


@pytest.mark.parametrize('entry', ENTRIES)
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_another_network_is_named(ending, entry, tmp_path, tiny_vae_folder):
    path, weights = tmp_path / f'resnet{ending}', {'layer1.0.conv1.weight': torch.zeros(64, 64, 1, 1)}
    save_file(weights, path) if ending == '.safetensors' else torch.save(weights, path)
    error = RuntimeError if entry == 'mmengine' else ValueError  # called with strict=True, it says what torch says
    with pytest.raises(error, match=r'layer1\.0\.conv1\.weight|encoder\.conv_in\.weight|cls_token'):
        ENTRIES[entry](path, tiny_vae_folder)


#: entry -> the model it loads into, and a tensor of it.
SIZES = {
    'init_cfg': ('usp-pretrain', 'backbone.blocks.1.mlp.fc1.weight'),
    'load_from': ('usp-pretrain', 'backbone.blocks.1.mlp.fc1.weight'),
    'tools/reconstruct.py': ('usp-pretrain', 'neck.decoder_pred.weight'),
    'tools/sample.py': ('dit', 'denoiser_ema.module.y_embedder.embedding_table.weight'),
    'tools/infer.py': ('timm', 'head.layers.head.weight'),
    'tools/knn.py': ('usp-pretrain', 'backbone.blocks.1.mlp.fc1.weight'),
    'convert': ('dit', 'denoiser.blocks.1.attn.qkv.weight'),
    'vae.path': (None, 'decoder.conv_out.weight'),
}


@pytest.mark.parametrize('entry', SIZES)
def test_another_size_is_named(entry, tmp_path, tiny_vae_folder):
    kind, name = SIZES[entry]
    state = dict(kl_weights(GOLDEN_KL16) if kind is None else build(kind).state_dict())
    state[name] = state[name][:-1].clone()
    save_file(state, tmp_path / 'size.safetensors')
    short = re.escape(name.split('.', 2)[-1])
    found, expected = state[name].shape, (state[name].shape[0] + 1, *state[name].shape[1:])
    with pytest.raises(ValueError, match=short) as error:
        ENTRIES[entry](tmp_path / 'size.safetensors', tiny_vae_folder)
    told = str(error.value)
    assert '\n' not in told
    for shape in (found, expected):
        assert ', '.join(map(str, shape)) in told, shape


def test_safetensors_where_a_checkpoint_is_asked_for(tmp_path, tiny_vae_folder):
    path, state = tmp_path / 'usp.safetensors', {name: x.clone() for name, x in pretrained().state_dict().items()}
    for i, entry in enumerate(('init_cfg', 'load_from', 'mmengine', 'tools/reconstruct.py', 'tools/knn.py')):
        state['backbone.cls_token'].fill_(i)
        save_file(state, path)
        loaded = ENTRIES[entry](path, tiny_vae_folder)
        model = pretrained() if entry == 'mmengine' else getattr(loaded, 'network', loaded)
        found = next(x for name, x in model.state_dict().items() if name.endswith('cls_token'))
        assert found.unique().tolist() == [i], entry
    for kind, entry, name in (
        ('dit', 'tools/sample.py', 'denoiser.final_layer.linear.bias'),
        ('timm', 'tools/infer.py', 'head.layers.head.bias'),
    ):
        state = MODELS.build(config(kind, tiny_vae_folder).model).state_dict()
        save_file(state | {name: torch.full_like(state[name], 7)}, path)
        loaded = ENTRIES[entry](path, tiny_vae_folder)
        assert getattr(loaded, 'model', loaded).state_dict()[name].unique().tolist() == [7], entry
    save_file(kl_weights(GOLDEN_KL16), path)
    assert ENTRIES['vae.path'](path, tiny_vae_folder).channels == 16


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_what_is_downloaded_is_data_too(tmp_path, monkeypatch):
    """`load_from` and `init_cfg=dict(type='Pretrained')` take addresses."""
    files = tmp_path / 'files'
    files.mkdir()
    with local_hub(files, tmp_path, monkeypatch) as server:
        for path in bombs(files, tmp_path / 'ran'):
            with pytest.raises(ValueError, match=rf'hub/checkpoints/{path.name} .*which is refused'):
                CheckpointLoader.load_checkpoint(f'{server.url}/files/{path.name}', map_location='cpu')
        assert not (tmp_path / 'ran').exists()
        save_file(dict(a=torch.ones(2)), files / 'a.safetensors')
        content = CheckpointLoader.load_checkpoint(f'{server.url}/files/a.safetensors?download=true')
        assert content['state_dict']['a'].tolist() == [1, 1]
        asked = len(server.asked)
        assert CheckpointLoader.load_checkpoint(f'{server.url}/files/a.safetensors')['state_dict'].keys() == {'a'}
        assert len(server.asked) == asked  # it is there now


def test_a_checkpoint_of_weights_alone_has_an_empty_meta(tmp_path):
    """OpenMMLab's inferencers ask for it."""
    save_file(dict(a=torch.ones(2)), tmp_path / 'a.safetensors')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.safetensors'))
    assert (content['state_dict']['a'].tolist(), content['meta']) == ([1, 1], {})


def test_resume_needs_more_than_weights(tmp_path):
    model = pretrained()
    runner = SimpleNamespace(model=model, _train_loop=None, _resume=True, logger=None)
    with pytest.raises(ValueError, match='holds weights alone: a run starts from it with load_from'):
        CheckpointMatchHook().after_load_checkpoint(runner, dict(state_dict=model.state_dict(), meta={}))
    CheckpointMatchHook().after_load_checkpoint(runner, dict(state_dict=model.state_dict(), meta=dict(epoch=1)))


def test_a_config_in_a_checkpoint_is_not_handed_on(tmp_path):
    """MMEngine's `resume` would execute one, an inferencer that is given weights alone the others."""
    code = f'open({str(tmp_path / "ran")!r}, "w")'
    hub = dict(runtime_info=dict(cfg=code, epoch=1), log_scalars={}, resumed_keys={})
    torch.save(
        dict(state_dict=dict(w=torch.zeros(1)), meta=dict(epoch=1, config=code, cfg=code), message_hub=hub), tmp_path / 'a.pth'
    )
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))
    assert (content['meta'], content['message_hub']['runtime_info']) == (dict(epoch=1), dict(epoch=1))
    with pytest.raises(ValueError, match='Cannot find the config in the checkpoint'):
        MMSegInferencer(None, weights=str(tmp_path / 'a.pth'), device='cpu')
    assert not (tmp_path / 'ran').exists()


def test_the_allowed_names_do_not_open_a_way(tmp_path):
    class Reduced:
        def __reduce__(self):
            return getattr, (HistoryBuffer, '__init__')

    torch.save(dict(a=Reduced()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match=r"holds more than data \(attribute '__init__' of .*HistoryBuffer.*which is refused"):
        read_checkpoint(tmp_path / 'a.pth')


def test_content_of_files(tmp_path):
    torch.save([torch.ones(1)], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth holds a list, not a checkpoint'):
        read_checkpoint(tmp_path / 'list.pth')
    with pytest.raises(FileNotFoundError, match=r'no\.pth is not a file'):
        read_weights(tmp_path / 'no.pth')
    torch.save(dict(model=official('dit'), epoch=1), tmp_path / 'dit.pth')
    assert read_checkpoint(tmp_path / 'dit.pth')['epoch'] == 1
    assert read_weights(tmp_path / 'dit.pth').keys() == official('dit').keys()


def test_a_device_that_is_not_here_is_no_broken_file(tmp_path):
    torch.save({'x': torch.zeros(2)}, tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"x\.pth holds tensors of a device that is not here: read it with map_location='cpu'"):
        read_checkpoint(tmp_path / 'x.pth', 'cuda:99')


def test_memory_that_ends_is_no_broken_file(tmp_path, monkeypatch):
    torch.save({'x': torch.zeros(2)}, tmp_path / 'x.pth')
    monkeypatch.setattr('torch.load', Mock(side_effect=torch.OutOfMemoryError('CUDA out of memory')))
    with pytest.raises(torch.OutOfMemoryError, match='CUDA out of memory'):
        read_checkpoint(tmp_path / 'x.pth')
