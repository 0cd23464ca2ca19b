import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from safetensors.torch import save_file

from usp_mm.checkpoints import from_official, to_official
from usp_mm.models.weight_transfer import transfer_encoder
from usp_mm.models.weight_transfer.report import group_names

ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)


def encoder(checkpoint, **kwargs):
    cfg = dict(type='USPViT', arch=ARCH, vae='sd-f8d4', img_size=64, init_cfg=dict(type='USPPretrained', checkpoint=checkpoint))
    model = MODELS.build({**cfg, **kwargs})
    model.init_weights()
    return model


@pytest.fixture
def pretrained(tmp_path):
    model = MODELS.build(
        dict(
            type='USP',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64),
        )
    )
    model.init_weights()
    ours, official, safe = tmp_path / 'ours.pth', tmp_path / 'official.pth', tmp_path / 'ours.safetensors'
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), ours)
    torch.save(dict(model=to_official(model.state_dict()), epoch=1), official)
    save_file(model.state_dict(), safe)
    return model, dict(ours=str(ours), official=str(official), safetensors=str(safe))


@pytest.mark.parametrize('kind', ['ours', 'official', 'safetensors'])
def test_the_encoder_and_nothing_else_is_taken(pretrained, kind):
    model, files = pretrained
    loaded = encoder(files[kind]).state_dict()
    assert loaded.keys() == model.backbone.state_dict().keys()
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(loaded[name], value), name


def test_final_norms_may_differ_and_the_position_table_is_resized(pretrained):
    model, files = pretrained
    loaded = encoder(files['ours'], out_type='avg_featmap', final_norm=False, img_size=96)
    assert loaded.pos_embed.shape == (1, 37, 32)
    assert torch.equal(loaded.pos_embed[:, 0], model.backbone.pos_embed[:, 0])
    assert torch.equal(loaded.blocks[1].mlp.fc2.weight, model.backbone.blocks[1].mlp.fc2.weight)
    assert loaded.fc_norm.weight.tolist() == [1.0] * 32


def test_what_does_not_fit_is_an_error(pretrained, tmp_path):
    _, files = pretrained
    with pytest.raises(ValueError, match=r'12 missing \(blocks\.2\.norm1\.weight, .*, …\): another arch or VAE\?'):
        encoder(files['ours'], arch={**ARCH, 'depth': 3})
    with pytest.raises(ValueError, match=r'(?s)does not fit the backbone.*patch_embed\.proj\.weight.*\[32, 4, 2, 2\]'):
        encoder(files['ours'], vae='kl-f16d16')
    with pytest.raises(FileNotFoundError, match=r'nothing\.pth'):
        encoder(str(tmp_path / 'nothing.pth'))
    with pytest.raises(ValueError, match=r'init_cfg\.checkpoint is unset'):
        encoder(None)
    torch.save(dict(state_dict=dict(weight=torch.zeros(1))), tmp_path / 'foreign.pth')
    with pytest.raises(ValueError, match=r"no encoder in the checkpoint.*'weight'"):
        encoder(str(tmp_path / 'foreign.pth'))


@pytest.mark.parametrize('switch', [dict(keep_layers=1), dict(load_norms=False), dict(pos_interp='bilinear')])
def test_an_encoder_has_no_switches(pretrained, switch):
    with pytest.raises(ValueError, match=rf'USPViT sets .*{next(iter(switch))}.*switches of DiT and SiT'):
        encoder(pretrained[1]['ours'], init_cfg=dict(type='USPPretrained', checkpoint=pretrained[1]['ours'], **switch))


def test_official_names_round_trip(pretrained):
    model, _ = pretrained
    official = to_official(model.state_dict())
    assert {'cls_token', 'mask_token', 'decoder_pred.weight', 'blocks.0.attn.qkv.weight'} <= official.keys()
    assert from_official(official).keys() == model.state_dict().keys()
    with pytest.raises(ValueError, match=r"'vae\.encoder' is not a key of an official"):
        from_official({'vae.encoder': torch.zeros(1)})


# ---------------------------------------------------------------------- DiT and SiT


def denoiser(type='DiT', init_cfg=None, **kwargs):
    """A model of seed 0: what is not transferred is the same in every one."""
    torch.manual_seed(0)
    model = MODELS.build(dict(dict(type=type, arch=ARCH, img_size=64, num_classes=10, init_cfg=init_cfg), **kwargs))
    model.init_weights()
    return model


@pytest.fixture
def trained(pretrained):
    """An official checkpoint in which nothing is as initialised, norms and position table included."""
    state = to_official(pretrained[0].state_dict())
    return {name: value + torch.rand(value.shape) for name, value in state.items()}


@pytest.mark.parametrize('type', ['DiT', 'SiT'])
@pytest.mark.parametrize('kind', ['ours', 'official', 'safetensors'])
def test_a_denoiser_starts_from_every_kind_of_file(pretrained, kind, type):
    source, files = pretrained
    loaded = denoiser(type, dict(type='USPPretrained', checkpoint=files[kind]))
    assert torch.equal(loaded.x_embedder.proj.weight, source.backbone.patch_embed.proj.weight)
    assert torch.equal(loaded.pos_embed, source.backbone.pos_embed[:, 1:])
    for name, value in source.backbone.blocks.state_dict().items():
        assert torch.equal(loaded.blocks.state_dict()[name], value), name
    assert not loaded.blocks[1].adaLN_modulation[1].weight.any()


BLOCK_PARTS = r'(norm\d|attn|mlp)\.'
#: switches -> the names that are taken: 12 a block, 4 of them norms; 2 of PatchConv; 1 table
SWITCHES = [
    ({}, rf'x_embedder|pos_embed|blocks\.\d\.{BLOCK_PARTS}', 27),
    (dict(keep_layers=1), rf'x_embedder|pos_embed|blocks\.0\.{BLOCK_PARTS}', 15),
    (dict(keep_layers=[1]), rf'x_embedder|pos_embed|blocks\.1\.{BLOCK_PARTS}', 15),
    (dict(keep_layers=0), r'x_embedder|pos_embed', 3),
    (dict(load_norms=False), r'x_embedder|pos_embed|blocks\.\d\.(attn|mlp)\.', 19),
    (dict(load_patch_embed=False), rf'pos_embed|blocks\.\d\.{BLOCK_PARTS}', 25),
    (dict(load_pos_embed=False), rf'x_embedder|blocks\.\d\.{BLOCK_PARTS}', 26),
]


@pytest.mark.parametrize(('switches', 'names', 'number'), SWITCHES, ids=str)
def test_a_switch_takes_its_tensors_and_leaves_the_others_as_initialised(trained, switches, names, number):
    model, fresh = denoiser(), denoiser().state_dict()
    report = transfer_encoder(model, trained, **switches)
    assert len(report.taken) == number
    assert all(re.match(names, name) for name in report.taken)
    assert set(report.random) == fresh.keys() - set(report.taken)
    assert set(report.dropped) == trained.keys() - {name.replace('x_embedder', 'patch_embed') for name in report.taken}
    source = dict(trained, pos_embed=trained['pos_embed'][:, 1:])
    for name, value in model.state_dict().items():
        theirs = source[name.replace('x_embedder', 'patch_embed')] if name in report.taken else fresh[name]
        assert torch.equal(value, theirs), name


def test_a_model_without_affine_norms_drops_them(trained):
    report = transfer_encoder(denoiser(norm_affine=False), trained)
    norms = {name for name in trained if re.match(r'blocks\.\d\.norm\d\.', name)}
    assert len(norms) == 8
    assert norms <= set(report.dropped)
    assert len(report.taken) == 19


def test_a_deeper_encoder_gives_the_blocks_that_are_named(trained):
    model = denoiser(arch={**ARCH, 'depth': 1})
    transfer_encoder(model, trained, keep_layers=1)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, trained['blocks.0.mlp.fc1.weight'])
    deeper = denoiser(arch={**ARCH, 'depth': 3})
    assert 'blocks.2.mlp.fc1.weight' in transfer_encoder(deeper, trained, keep_layers=[0, 1]).random


@pytest.mark.parametrize('mode', ['bicubic', 'bilinear'])
def test_the_position_table_is_resized_without_its_class_token(trained, mode):
    model = denoiser(img_size=96)
    report = transfer_encoder(model, trained, pos_interp=mode)
    grid = trained['pos_embed'][:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    expected = F.interpolate(grid, size=(6, 6), mode=mode).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed.detach(), expected, rtol=0, atol=1e-6)
    assert report.resized == {'pos_embed': ((4, 4), (6, 6))}


def test_half_precision_weights_are_widened(trained):
    model = denoiser()
    transfer_encoder(model, {name: value.half() for name, value in trained.items()})
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert torch.equal(model.blocks[0].attn.qkv.weight, trained['blocks.0.attn.qkv.weight'].half().float())


def test_a_pixel_mae_gives_everything_but_its_patches():
    """Table 8a."""
    mae = MODELS.build(dict(type='USPViT', arch=ARCH, vae='pixel', img_size=64))
    mae.init_weights()
    model, fresh = denoiser(), denoiser()
    with pytest.raises(ValueError, match=r'(?s)\[32, 3, 16, 16\].*\[32, 4, 2, 2\].*load_patch_embed=False'):
        transfer_encoder(model, mae.state_dict())
    assert torch.equal(model.blocks[0].attn.qkv.weight, fresh.blocks[0].attn.qkv.weight), 'an error leaves the model alone'
    report = transfer_encoder(model, mae.state_dict(), load_patch_embed=False)
    assert {'x_embedder.proj.weight', 'x_embedder.proj.bias'} <= set(report.random)
    assert 'pos_embed' in report.taken
    assert torch.equal(model.blocks[1].mlp.fc2.weight, mae.blocks[1].mlp.fc2.weight)


def test_a_classifier_is_taken_without_its_head_and_the_log_says_so(tmp_path, monkeypatch):
    """Table 9's supervised model."""
    classifier = MODELS.build(
        dict(
            type='USPClassifier',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64, out_type='avg_featmap', final_norm=False),
            head=dict(type='VisionTransformerClsHead', num_classes=10),
        )
    )
    classifier.init_weights()
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'sft.pth')
    log = []
    monkeypatch.setattr(MMLogger, 'info', lambda self, message: log.append(message))
    model = denoiser(init_cfg=dict(type='USPPretrained', checkpoint=str(tmp_path / 'sft.pth'), keep_layers=1), img_size=96)
    assert torch.equal(model.blocks[0].attn.qkv.bias, classifier.backbone.blocks[0].attn.qkv.bias)
    assert [line for line in log if line.startswith('DiT starts from')] == [
        f'DiT starts from {tmp_path / "sft.pth"}: 15 tensors taken: blocks 0 attn, mlp, norm1, norm2 (12), '
        'pos_embed (1), x_embedder (2); resized: pos_embed 4x4 to 6x6; dropped: blocks 1 attn, mlp, norm1, norm2 (12), '
        'cls_token (1), fc_norm (2), head (2); left as initialised: blocks 0 adaLN_modulation (2), '
        'blocks 1 adaLN_modulation, attn, mlp, norm1, norm2 (14), final_layer (4), t_embedder (4), y_embedder (1)'
    ]


def test_names_are_grouped_by_blocks_that_are_alike():
    names = [f'blocks.{i}.attn.qkv.bias' for i in (0, 1, 2, 5)] + ['blocks.3.mlp.fc1.bias', 'neck.mask_token', 'pos_embed']
    groups = 'blocks 0-2, 5 attn (4), blocks 3 mlp (1), neck (1), pos_embed (1)'
    assert group_names(names) == groups
    assert group_names([]) == 'none'


def without(state, part):
    return {name: value for name, value in state.items() if part not in name}


#: what is done to the checkpoint, arguments of the transfer, the error
BAD = {
    'deeper': (lambda s: {**s, **{k.replace('.1.', '.2.'): v for k, v in s.items() if k.startswith('blocks.1.')}}, {},
               r'has 3 blocks of width 32, the model 2 blocks of width 32: make arch agree, or .* keep_layers=2$'),
    'wider': (lambda s: {k: v.repeat_interleave(2, 0) for k, v in s.items()}, {},
              r'has 2 blocks of width 64, the model 2 blocks of width 32: make arch agree$'),
    'wider MLP': (lambda s: {k: v.repeat_interleave(2, 0) if '1.mlp.fc1' in k else v for k, v in s.items()}, {},
                  r'has \[256, 32\] for blocks\.1\.mlp\.fc1\.weight, the model \[128, 32\]: make arch agree'),
    'no blocks': (lambda s: without(s, 'blocks.'), {}, r"no 'blocks\.…' in the checkpoint.*'cls_token'"),
    'a block lacks its bias': (lambda s: without(s, 'qkv.bias'), {}, r"lacks \['blocks\.0\.attn\.qkv\.bias', .*\(2 tensors"),
    'a gap': (lambda s: without(s, 'blocks.0.'), {}, r"lacks \['blocks\.0\.norm1\.weight'.*\(12 tensors"),
    'layer scale': (lambda s: {**s, 'blocks.0.ls1.gamma': s['norm.bias']}, {}, r"has \['blocks\.0\.ls1\.gamma'\].*scale"),
    'query norm': (lambda s: {**s, 'blocks.0.attn.q_norm.bias': s['norm.bias']}, {}, r"has \['blocks\.0\.attn\.q_norm\.bias"),
    'registers': (lambda s: {**s, 'reg_token': s['cls_token']}, {}, r"has \['reg_token'\].*no DiT or SiT has a place for"),
    'no square': (lambda s: {**s, 'pos_embed': s['pos_embed'][:, :-1]}, {}, r'is \[1, 16, 32\].*load_pos_embed=False'),
    'no table': (lambda s: without(s, 'pos_embed'), {}, r"lacks \['pos_embed'\]"),
    'too many kept': (dict, dict(keep_layers=3), r'keep_layers=3 must lie in 0 … 2'),
    'negative': (dict, dict(keep_layers=-1), r'keep_layers=-1 must lie in 0 … 2'),
    'no such block': (dict, dict(keep_layers=[0, 2]), r'keep_layers=\[0, 2\]: 2 is not a block from 0 to 1'),
    'not a number': (dict, dict(keep_layers=True), r'keep_layers=True must be None, a number of blocks or a list'),
    'nothing left': (dict, dict(keep_layers=0, load_patch_embed=False), r'leave nothing learned to take'),
    'kernel': (dict, dict(pos_interp='bicubik'), r"pos_interp='bicubik'.*did you mean 'bicubic'"),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_what_does_not_fit_a_denoiser_is_an_error(trained, case):
    spoil, switches, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        transfer_encoder(denoiser(), spoil(trained), **switches)


def test_an_error_names_file_and_preset(tmp_path):
    model = MODELS.build(dict(type='USPViT', arch='tiny', img_size=64))
    torch.save(model.state_dict(), tmp_path / 'tiny.pth')
    sizes = r"4 blocks of width 128 \(arch 'tiny'\), the model 2 blocks of width 32: make arch agree$"
    message = rf"tiny\.pth' does not fit SiT: the checkpoint has {sizes}"
    with pytest.raises(ValueError, match=message):
        denoiser('SiT', dict(type='USPPretrained', checkpoint=str(tmp_path / 'tiny.pth')))


def test_the_encoder_lies_below_a_prefix_of_its_own(pretrained, tmp_path):
    model, _ = pretrained
    named = {f'online.{name}': value for name, value in model.backbone.state_dict().items()}
    torch.save(dict(state_dict=named), tmp_path / 'named.pth')
    init_cfg = dict(type='USPPretrained', checkpoint=str(tmp_path / 'named.pth'), prefix='online.')
    assert torch.equal(encoder(None, init_cfg=init_cfg).blocks[1].mlp.fc2.weight, model.backbone.blocks[1].mlp.fc2.weight)
    assert torch.equal(denoiser(init_cfg=init_cfg).blocks[1].mlp.fc2.weight, model.backbone.blocks[1].mlp.fc2.weight)
