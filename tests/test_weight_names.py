"""Every entry point takes wrapped names and weights wherever frameworks put them, and refuses numbers that are not finite."""

import re
from types import SimpleNamespace

import pytest
import torch
from helpers.checkpoint_files import build, official
from helpers.teacher_files import MODEL, teacher_folder
from helpers.vae_files import GOLDEN_KL16, kl_weights
from mmengine.logging import MMLogger
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, load_checkpoint
from safetensors.torch import save_file
from test_weight_files import ENTRIES, pretrained

from usp_mm.engine import CheckpointMatchHook
from usp_mm.fileio.weights import check_finite, first_not_finite, read_weights, unwrapped_names, weights_in
from usp_mm.models.repa import build_teacher
from usp_mm.vaes import build_codec

#: entry -> weights that it loads, and one of their names.
WEIGHTS = {
    'init_cfg': (lambda: build('usp-pretrain').state_dict(), 'backbone.cls_token'),
    'load_from': (lambda: build('usp-pretrain').state_dict(), 'backbone.cls_token'),
    'mmengine': (lambda: build('usp-pretrain').state_dict(), 'backbone.cls_token'),
    'tools/reconstruct.py': (lambda: build('usp-pretrain').state_dict(), 'backbone.cls_token'),
    'tools/knn.py': (lambda: build('usp-pretrain').state_dict(), 'backbone.cls_token'),
    'tools/sample.py': (lambda: build('dit').state_dict(), 'denoiser_ema.module.final_layer.linear.bias'),
    'tools/infer.py': (lambda: build('timm').state_dict(), 'head.layers.head.bias'),
    'convert': (lambda: official('timm'), 'head.bias'),
    'vae.path': (lambda: kl_weights(GOLDEN_KL16), 'decoder.conv_out.bias'),
}
#: How frameworks save: prefix of names, and where the weights stand (None: they are the file).
SAVED = [
    ('module.', 'state_dict'), ('_orig_mod.', 'model'), ('module._orig_mod.', None),
    ('_orig_mod.module.module.', 'state_dict_ema'), ('', 'ema'),
]  # fmt: skip


def loaded_tensor(entry, loaded, path, name):
    if entry == 'convert':
        return torch.load(path.with_name('out.pth'), weights_only=True)['state_dict']['head.layers.head.bias']
    network = pretrained() if entry == 'mmengine' else loaded
    if not isinstance(network, torch.nn.Module):
        network = getattr(network, 'model', None) or network.network
    state = network.state_dict()
    return next(x for key, x in state.items() if name.endswith(key))


@pytest.mark.parametrize(('prefix', 'container'), SAVED)
@pytest.mark.parametrize('entry', WEIGHTS)
def test_wrapped_weights_are_loaded(entry, prefix, container, tmp_path, tiny_vae_folder):
    make, name = WEIGHTS[entry]
    weights = {key: value.clone() for key, value in make().items()}
    weights[name].fill_(7)
    wrapped, path = {prefix + key: value for key, value in weights.items()}, tmp_path / 'wrapped.pth'
    torch.save(wrapped if container is None else {container: wrapped}, path)
    loaded = ENTRIES[entry](path, tiny_vae_folder)
    assert loaded_tensor(entry, loaded, path, name).unique().tolist() == [7]


def test_names():
    names = unwrapped_names(['module.a.w', '_orig_mod.module.b.w', 'c._orig_mod.w', 'denoiser_ema.module.w', 'd.w'], 'f.pth')
    assert list(names.values()) == ['a.w', 'b.w', 'c.w', 'denoiser_ema.module.w', 'd.w']
    assert unwrapped_names(['module.a', 'n_averaged'], 'f.pth') == {'module.a': 'a'}  # torch's AveragedModel
    assert unwrapped_names(['module.a', 'steps'], 'f.pth') == {'module.a': 'a'}  # MMEngine's
    assert unwrapped_names(['a', 'steps'], 'f.pth') == {'a': 'a', 'steps': 'steps'}
    for pair in (('w', 'module.w'), ('a._orig_mod.w', 'a.w'), ('module.w', '_orig_mod.w')):
        with pytest.raises(ValueError, match=rf"'f\.pth' holds '{re.escape(pair[0])}' and '{re.escape(pair[1])}', both for"):
            unwrapped_names(pair, 'f.pth')


def test_of_several_sets_the_log_tells_which_is_taken(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', said.append)
    one, two = {'w': torch.zeros(1)}, {'w': torch.ones(1)}
    assert weights_in(dict(ema=two, model=one, args={}), 'dit.pth') == one
    assert said == ["'dit.pth' holds weights under model, ema: those under model are taken"]
    assert weights_in(dict(model=dict(depth=12), ema=two), 'dit.pth') == two and len(said) == 1
    with pytest.raises(ValueError, match=r'x\.pth holds no state dict: expected name -> tensor, plain or under'):
        weights_in(dict(epoch=1), 'x.pth')


def test_mmengine_loads_the_names_that_were_compared(tmp_path):
    state = pretrained().state_dict()
    torch.save(dict(state_dict={f'module.{k}': v for k, v in state.items()}, meta=dict(epoch=2)), tmp_path / 'ddp.pth')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'ddp.pth'))
    assert content['state_dict'].keys() == state.keys() and content['meta'] == dict(epoch=2)


class Keeps(BaseModule):
    """A layer with an extra state of any kind."""

    def __init__(self, extra):
        super().__init__()
        self.weight, self.extra = torch.nn.Parameter(torch.zeros(2)), extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, extra):
        self.extra = extra


@pytest.mark.parametrize('extra', [torch.tensor([3, 4]), b'three', dict(amax=[1.0], step=2), None])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_mmengine_loads_an_extra_state(prefix, extra, tmp_path):
    path, told = tmp_path / 'extra.pth', SimpleNamespace(_train_loop=None, _resume=False, logger=None)
    model, told.model = Keeps(extra), Keeps(b'none yet')
    torch.save(dict(state_dict={prefix + name: x for name, x in model.state_dict().items()}, meta=dict(epoch=2)), path)
    checkpoint = load_checkpoint(told.model, str(path), map_location='cpu', strict=True)
    assert str(told.model.extra) == str(extra) and checkpoint['state_dict'].keys() == {'weight', '_extra_state'}
    if isinstance(extra, torch.Tensor):
        return
    told.model = Keeps(extra)
    CheckpointMatchHook().after_load_checkpoint(told, checkpoint)
    with pytest.raises(ValueError, match=r'holds no state dict: .*_extra_state is a \w+: leave it out of the file'):
        read_weights(path)
    state = {name: torch.full_like(x, torch.nan) if name == 'weight' else x for name, x in model.state_dict().items()}
    torch.save(dict(state_dict=state), path)
    with pytest.raises(ValueError, match='of the 2 numbers of weight, 2 are NaN'):
        load_checkpoint(told.model, str(path))


def test_mmengine_loads_an_empty_state_dict(tmp_path):
    torch.save(dict(state_dict={}, meta=dict(epoch=2)), tmp_path / 'empty.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'empty.pth')) == dict(state_dict={}, meta=dict(epoch=2))
    with pytest.raises(ValueError, match='holds no state dict'):
        read_weights(tmp_path / 'empty.pth')


# ------------------------------------------------------------------ not finite


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('entry', WEIGHTS)
def test_weights_that_are_not_finite_are_refused(entry, value, tmp_path, tiny_vae_folder):
    make, name = WEIGHTS[entry]
    weights = {key: x.clone() for key, x in make().items()}
    weights[name].view(-1)[1] = value
    path = tmp_path / 'diverged.safetensors'
    save_file(weights, path)
    counts = '1 are NaN and 0 infinite' if value != value else '0 are NaN and 1 infinite'
    told = rf"diverged\.safetensors': of the {weights[name].numel()} numbers of {re.escape(name)}, {counts}: the training"
    with pytest.raises(ValueError, match=told) as error:
        ENTRIES[entry](path, tiny_vae_folder)
    assert '\n' not in str(error.value)


def test_a_pretrained_module_a_teacher_and_a_vae_of_diffusers(tmp_path, tiny_vae_folder):
    torch.save({'weight': torch.tensor([[float('nan')]])}, tmp_path / 'linear.pth')
    module = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'linear.pth')))
    with pytest.raises(ValueError, match=r'of the 1 numbers of weight, 1 are NaN'):
        module.init_weights()
    folder = teacher_folder(tmp_path / 'teacher')
    weights = read_weights(folder / 'model.safetensors')
    weights['norm.weight'][0] = float('nan')
    save_file(weights, folder / 'model.safetensors')
    with pytest.raises(ValueError, match=r'of the 64 numbers of norm\.weight, 1 are NaN'):
        _ = build_teacher(dict(name=MODEL, path=str(folder)), 64).network
    vae = build_codec('tiny', path=tiny_vae_folder).network
    next(vae.parameters()).data.view(-1)[0] = float('inf')
    vae.save_pretrained(tmp_path / 'vae')
    with pytest.raises(ValueError, match=r"vae': of the .* numbers of encoder\.conv_in\.weight, 0 are NaN and 1 infinite"):
        build_codec('tiny', path=tmp_path / 'vae')


def test_what_counts_as_finite():
    largest = torch.finfo(torch.float32).max
    for value in (
        torch.tensor([largest, largest]),  # their sum is not
        torch.full((9,), 6e4, dtype=torch.float16),
        torch.ones(3, dtype=torch.bfloat16),
        torch.ones(3).to(torch.float8_e4m3fn),
        torch.tensor([1, 2]),
        torch.tensor(True),
        torch.zeros(0),
        torch.tensor([1j]),
        torch.full((4, 4), -torch.inf).triu(1),  # a mask
    ):
        assert first_not_finite(dict(x=value)) is None, value
    nan, inf = float('nan'), torch.inf
    for value in (
        torch.tensor([1, nan]),
        torch.tensor([inf, -inf]),
        torch.tensor([1, -inf]),
        torch.tensor([0, inf]),
        torch.tensor([nan], dtype=torch.bfloat16),
        torch.tensor([nan]).to(torch.float8_e4m3fn),
        torch.tensor([complex(nan, 0)]),
    ):
        assert first_not_finite(dict(y=torch.ones(1), x=value)) == 'x', value
    with pytest.raises(ValueError, match=r"'a\.pth': of the 2 numbers of second, 1 are NaN"):
        check_finite(dict(first=torch.zeros(1), second=torch.tensor([0, nan]), third=torch.tensor([nan])), 'a.pth')


def test_the_optimizer_of_a_file_is_not_read_for_weights(tmp_path):
    """A run that starts from a file with load_from has its own."""
    state = dict(state={0: dict(exp_avg=torch.tensor([float('nan')]))}, param_groups=[])
    torch.save(dict(state_dict=pretrained().state_dict(), optimizer=state), tmp_path / 'a.pth')
    assert CheckpointLoader.load_checkpoint(str(tmp_path / 'a.pth'))['state_dict'].keys() == pretrained().state_dict().keys()
