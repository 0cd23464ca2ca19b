"""One file from pretraining starts every downstream model, and each says what of it is new."""

import pytest
import torch
from helpers.small_world import ARCH, ROOT, train_quickly
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope

from usp_mm.checkpoints import convert

FOUR_BLOCKS = dict(ARCH, depth=4)  # UPerNet takes the output of four
#: config -> parts of the model that the checkpoint has nothing for.
STARTS = {
    'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py': {'neck', 'head'},
    'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py': {'head', 'backbone.fc_norm'},
    'configs/dit/dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py': {
        'denoiser.adaLN_modulation', 'denoiser.final_layer', 'denoiser.t_embedder', 'denoiser.y_embedder',
    },
    'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py': {'neck', 'decode_head', 'auxiliary_head'},
}  # fmt: skip
#: Parts that need no word in the report: they are not the network that loads the checkpoint.
OUTSIDE = {'head', 'neck', 'decode_head', 'auxiliary_head'}
STARTS['configs/sit/sit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'] = STARTS[
    'configs/dit/dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'
]


@pytest.fixture(scope='module')
def pretrained(small_world, tmp_path_factory):
    """A checkpoint of tools/train.py's own making."""
    folder = tmp_path_factory.mktemp('pretrained')
    cfg = small_world.shrink(Config.fromfile(ROOT / 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'))
    cfg.model.backbone.arch = dict(FOUR_BLOCKS)
    train_quickly(cfg, folder)
    DefaultScope._instance_dict.clear()
    return folder / 'epoch_1.pth'


@pytest.mark.parametrize('path', STARTS)
def test_everything_starts_from_the_same_file(path, pretrained, small_world, monkeypatch):
    cfg = Config.fromfile(ROOT / path)
    network = cfg.model.get('denoiser') or cfg.model.backbone
    network.update(arch=dict(FOUR_BLOCKS), img_size=224)
    if 'frozen_stages' in network:
        network.frozen_stages = FOUR_BLOCKS['depth']
    network.init_cfg.checkpoint = str(pretrained)
    encoding = network if network.get('encode_images') else cfg.model.data_preprocessor
    encoding.vae = small_world.vae_of('sd-f8d4')
    reports = []
    monkeypatch.setattr(MMLogger, 'info', lambda self, message, *_: reports.append(message))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()

    state = torch.load(pretrained, weights_only=True)['state_dict']
    theirs = {name.removeprefix('backbone.').replace('patch_embed', 'x_embedder'): x for name, x in state.items()}
    new = set()
    for name, value in model.state_dict().items():
        part, _, own = name.partition('.')
        source = theirs.get(own.replace('patch_embed', 'x_embedder')) if part in ('backbone', 'denoiser') else None
        if own == 'pos_embed' and part == 'denoiser':
            source = source[:, 1:]
        if source is not None:
            assert torch.equal(value, source), name
        elif part not in ('denoiser_ema', 'data_preprocessor'):
            new.add(_group(name))
    assert new == STARTS[path]
    (report,) = (text for text in reports if str(pretrained) in text)
    for part in new - OUTSIDE:
        assert part.split('.')[-1].removesuffix('_modulation') in report


def test_it_goes_out_and_comes_back(pretrained, tmp_path):
    state = torch.load(pretrained, weights_only=True)['state_dict']
    report = convert(pretrained, tmp_path / 'official.pth', 'official')
    assert {'message_hub', 'meta', 'optimizer', 'param_schedulers'} == set(report.dropped)
    assert len(report.written) == len(state)
    convert(tmp_path / 'official.pth', tmp_path / 'ours.pth')
    back = torch.load(tmp_path / 'ours.pth', weights_only=True)['state_dict']
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


def _group(name):
    """'denoiser.adaLN_modulation' of 'denoiser.blocks.0.adaLN_modulation.1.weight'."""
    part, *rest = name.split('.')
    if part in OUTSIDE:
        return part
    return f'{part}.{"adaLN_modulation" if rest[0] == "blocks" and "adaLN_modulation" in rest else rest[0]}'
