"""Every pair of formats there and back, every tensor accounted for, and what cannot be converted."""

import pytest
import torch
from helpers.checkpoint_files import ARCH, build, equal, load_strictly, official, save_official
from helpers.vae_files import SMALL_VAVAE, kl_weights
from mmpretrain.registry import MODELS
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer

from usp_mm.checkpoints import convert
from usp_mm.checkpoints.norm_folding import fold_norms

GENERATORS = ['usp-dit', 'dit', 'usp-sit', 'sit', 'repa', 'lightningdit']
ENCODERS = ['usp-pretrain', 'mae', 'timm']


def saved(path):
    return torch.load(path, weights_only=True)


def same_bits(path, sets):
    """Whether a pickle holds these sets of weights."""
    found = saved(path)
    return all(equal(found[which], weights) for which, weights in sets.items())


def without(weights, *prefixes):
    return {name: value for name, value in weights.items() if not name.startswith(prefixes)}


# ---------------------------------------------------------------------- there and back


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
@pytest.mark.parametrize('kind', ENCODERS)
def test_encoders_there_and_back(kind, ending, tmp_path):
    sets = save_official(kind, tmp_path / 'official.pth')
    ours, back = tmp_path / f'ours{ending}', tmp_path / 'back.pth'
    report = convert(tmp_path / 'official.pth', ours)
    assert report.kind == kind
    state = load_file(ours) if ending == '.safetensors' else saved(ours)['state_dict']
    build(kind).load_state_dict(state, strict=True)
    assert report.written == {name: (_official_name(name),) for name in state}
    assert set(report.dropped) == ({'optimizer', 'epoch', 'args'} if kind != 'timm' else set())
    convert(ours, back, 'official')
    assert same_bits(back, sets)


def _official_name(name):
    return name.removeprefix('backbone.').removeprefix('neck.').removeprefix('head.layers.')


@pytest.mark.parametrize('kind', GENERATORS)
def test_generators_there_and_back(kind, tmp_path):
    sets = save_official(kind, tmp_path / 'official.pt')
    report = convert(tmp_path / 'official.pt', tmp_path / 'ours.pth')
    assert report.kind == kind
    if kind != 'repa':  # its projector is in the golden test
        block = dict(norm='rms', mlp='swiglu', rope=True, qk_norm=True)
        model = build(kind, **(dict(block=block, norm_affine=True) if kind == 'lightningdit' else {}))
        load_strictly(model, tmp_path / 'ours.pth')
    state = saved(tmp_path / 'ours.pth')['state_dict']
    assert equal({k[9:]: v for k, v in state.items() if k.startswith('denoiser.')}, without(sets['model'], 'feat_r', 'proj'))
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pt', 'official')
    expected = {which: without(weights, 'feat_rope.') for which, weights in sets.items()}
    if kind == 'repa':  # there is one projector, the trained one
        expected['ema'] |= {name: x for name, x in sets['model'].items() if name.startswith('projectors.')}
        assert saved(tmp_path / 'back.pt')['steps'] == 400
    assert same_bits(tmp_path / 'back.pt', expected)
    convert(tmp_path / 'back.pt', tmp_path / 'again.pth', from_=kind)
    assert equal(saved(tmp_path / 'again.pth')['state_dict'], state)


def test_what_is_dropped_of_repa_and_lightningdit_has_a_reason(tmp_path):
    save_official('repa', tmp_path / 'repa.pt')
    dropped = convert(tmp_path / 'repa.pt', tmp_path / 'ours.pth').dropped
    assert dropped['ema: projectors.0.4.bias'].startswith('the average of the projector')
    save_official('lightningdit', tmp_path / 'lightning.pt')
    report = convert(tmp_path / 'lightning.pt', tmp_path / 'lightning.pth')
    assert report.dropped['model: module.feat_rope.freqs_cos'] == 'rotary table, computed from the size'
    assert report.written['denoiser.blocks.1.mlp.w12.weight'] == ('model: module.blocks.1.mlp.w12.weight',)
    name = ('renamed', 'model: module.blocks.N.mlp.w12.weight', 'denoiser.blocks.N.mlp.w12.weight', 2)
    assert name in report.rows()


def test_one_unnamed_set_becomes_network_and_average(tmp_path):
    weights = official('dit')
    torch.save(weights, tmp_path / 'DiT.pt')
    report = convert(tmp_path / 'DiT.pt', tmp_path / 'ours.pth')
    assert 'the one set of weights becomes the network and its average' in report.notes
    assert report.written['denoiser_ema.steps'] == ()
    model = load_strictly(build('dit'), tmp_path / 'ours.pth')
    assert equal(model.denoiser.state_dict(), weights)
    assert equal(model.denoiser_ema.module.state_dict(), weights)
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pt', 'official', weights='ema')
    assert equal(saved(tmp_path / 'back.pt'), weights)


@pytest.mark.parametrize('which', ['ema', 'model'])
def test_one_set_of_two(which, tmp_path):
    sets = save_official('sit', tmp_path / 'sit.pt')
    convert(tmp_path / 'sit.pt', tmp_path / 'ours.safetensors', weights=which)
    state = load_file(tmp_path / 'ours.safetensors')
    for prefix in ('denoiser.', 'denoiser_ema.module.'):
        assert equal({k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}, sets[which])
    convert(tmp_path / 'sit.pt', tmp_path / 'flat.safetensors', 'safetensors', weights=which)
    assert equal(load_file(tmp_path / 'flat.safetensors'), sets[which])


def test_averaged_weights_are_the_default_where_one_set_fits(tmp_path):
    sets = save_official('dit', tmp_path / 'dit.pt')
    report = convert(tmp_path / 'dit.pt', tmp_path / 'flat.safetensors', 'safetensors')
    assert equal(load_file(tmp_path / 'flat.safetensors'), sets['ema'])
    assert any('averaged weights are taken' in note for note in report.notes)
    assert report.dropped['model: pos_embed'] == 'weights=ema'


def test_a_checkpoint_of_ours_without_an_average_stays_so(tmp_path):
    weights = official('dit')
    torch.save(dict(state_dict={f'denoiser.{k}': v for k, v in weights.items()}), tmp_path / 'orig.pth')
    convert(tmp_path / 'orig.pth', tmp_path / 'same.safetensors')
    assert equal(load_file(tmp_path / 'same.safetensors'), {f'denoiser.{k}': v for k, v in weights.items()})


def test_a_linear_probe_there_and_back(tmp_path):
    flat = without(official('timm'), 'head.')
    head = {'head.0.running_mean': torch.rand(48), 'head.0.running_var': torch.rand(48), 'head.1.weight': torch.rand(10, 48)}
    flat |= head | {'head.0.num_batches_tracked': torch.tensor(3), 'head.1.bias': torch.rand(10)}
    torch.save(dict(model=flat), tmp_path / 'probe.pth')
    convert(tmp_path / 'probe.pth', tmp_path / 'ours.pth')
    model = MODELS.build(
        dict(
            type='USPClassifier',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            backbone=dict(type='USPViT', arch=ARCH, img_size=64),
            neck=dict(type='ClsBatchNormNeck'),
            head=dict(type='VisionTransformerClsHead', num_classes=10),
        )
    )
    load_strictly(model, tmp_path / 'ours.pth')
    assert torch.equal(model.neck.bn.running_var, head['head.0.running_var'])
    convert(tmp_path / 'ours.pth', tmp_path / 'back.pth', 'official')
    assert same_bits(tmp_path / 'back.pth', dict(model=flat))
    with pytest.raises(ValueError, match=r"to timm: a linear probe's BatchNorm, .* \(.*neck\.bn\.running_mean.*\)"):
        convert(tmp_path / 'ours.pth', tmp_path / 'vit.pth', 'timm')
    convert(tmp_path / 'ours.pth', tmp_path / 'vit.pth', 'timm', drop=['neck.', 'head.'])
    assert equal(saved(tmp_path / 'vit.pth'), without(flat, 'head.'))


def test_vavae_there_and_back(tmp_path):
    weights, extra = kl_weights(SMALL_VAVAE), {'foundation_model.norm.weight': torch.zeros(1)}
    torch.save(dict(state_dict=weights | extra), tmp_path / 'vavae.ckpt')
    report = convert(tmp_path / 'vavae.ckpt', tmp_path / 'vavae.safetensors')
    assert (report.kind, set(report.dropped)) == ('vavae', set(extra))
    convert(tmp_path / 'vavae.safetensors', tmp_path / 'back.ckpt', 'official')
    assert same_bits(tmp_path / 'back.ckpt', dict(model=weights))


# ---------------------------------------------------------------------- timm, and norms


def test_timm_loads_it_and_gives_the_same_features(tmp_path):
    sets = save_official('usp-pretrain', tmp_path / 'usp.pth')
    convert(tmp_path / 'usp.pth', tmp_path / 'ours.pth')
    report = convert(tmp_path / 'ours.pth', tmp_path / 'vit.safetensors', 'timm')
    assert report.dropped['neck.mask_token'] == 'only for pretraining, no part of a ViT'
    vit = VisionTransformer(8, 2, 4, num_classes=0, embed_dim=48, depth=2, num_heads=3, qkv_bias=True, global_pool='token')
    vit.load_state_dict(load_file(tmp_path / 'vit.safetensors'), strict=True)
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ours = load_strictly(build('usp-pretrain'), tmp_path / 'ours.pth').backbone
    with torch.no_grad():
        torch.testing.assert_close(vit.eval()(x), ours(x)[0], rtol=0, atol=1e-5)
    convert(tmp_path / 'vit.safetensors', tmp_path / 'back.pth')
    state = saved(tmp_path / 'back.pth')['state_dict']
    assert equal({k.removeprefix('backbone.'): v for k, v in state.items()}, without(sets['model'], 'decoder_', 'mask_token'))


@pytest.mark.parametrize('target', ['official', 'usp_mm'])
def test_norms_fold_into_adaln(target, tmp_path):
    save_official('usp-dit', tmp_path / 'usp.pt')
    convert(tmp_path / 'usp.pt', tmp_path / 'affine.pth')
    folded = tmp_path / ('official.pt' if target == 'official' else 'plain.pth')
    report = convert(tmp_path / 'affine.pth', folded, target, fold_norms=True)
    assert any('there is no way back' in note for note in report.notes)
    linear = ('ema: ' if target == 'official' else 'denoiser_ema.module.') + 'blocks.1.adaLN_modulation.1.bias'
    assert report.changed[linear] == 'folded (norms into adaLN, one way)'
    assert {name.rsplit('blocks.1.')[-1] for name in report.written[linear]} == {
        'adaLN_modulation.1.bias', 'norm1.weight', 'norm1.bias', 'norm2.weight', 'norm2.bias',
    }  # fmt: skip
    if target == 'official':
        convert(folded, tmp_path / 'plain.pth')
    affine = load_strictly(build('usp-dit'), tmp_path / 'affine.pth')
    plain = load_strictly(build('dit'), tmp_path / 'plain.pth')
    x, y = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 10])
    t = torch.tensor([0, 500, 999])
    with torch.no_grad():
        for a, b in ((affine.denoiser, plain.denoiser), (affine.denoiser_ema.module, plain.denoiser_ema.module)):
            torch.testing.assert_close(b(x, t, y), a(x, t, y), rtol=0, atol=1e-5)


def test_rms_norms_do_not_fold(tmp_path):
    save_official('lightningdit', tmp_path / 'lightning.pt')
    with pytest.raises(ValueError, match=r'blocks\.0: norm1 and adaLN .* cannot be folded'):
        convert(tmp_path / 'lightning.pt', tmp_path / 'x.pt', 'official', fold_norms=True)
    save_official('dit', tmp_path / 'dit.pt')
    with pytest.raises(ValueError, match='no affine norms to fold'):
        convert(tmp_path / 'dit.pt', tmp_path / 'x.pt', 'official', fold_norms=True)
    assert fold_norms({}) == {}


# ---------------------------------------------------------------------- what does not fit


def changed(weights, name, value=None):
    return {key: x for key, x in weights.items() if key != name} | ({} if value is None else {name: value})


#: what is done to a DiT's weights, arguments, error
BAD = {
    'unknown key': (lambda w: w | {'blocks.0.ls1.gamma': torch.zeros(3)}, {}, r'1 unknown: blocks\.0\.ls1\.gamma \[3\]'),
    'missing key': (lambda w: changed(w, 'blocks.1.mlp.fc1.bias'), {}, r'1 missing: blocks\.1\.mlp\.fc1\.bias'),
    'no table': (lambda w: changed(w, 'pos_embed'), {}, r'1 missing: pos_embed'),
    'gap': (lambda w: without(w, 'blocks.0.'), {}, r'missing: .*blocks\.0\.attn\.qkv'),
    'wrong size': (lambda w: changed(w, 'blocks.1.attn.qkv.weight', torch.zeros(96, 48)), {},
                   r'1 of another shape: blocks\.1\.attn\.qkv\.weight \[96, 48\] instead of \[144, 48\]'),
    'wrong table': (lambda w: changed(w, 'pos_embed', torch.zeros(1, 16, 32)), {},
                    r'pos_embed \[1, 16, 32\] instead of \[1, 16, 48\]'),
    'another kind': (dict, dict(from_='timm'), r"not timm's ViT .* unknown: .*x_embedder\.proj\.weight \[48, 4, 2, 2\]"),
    'another network': (lambda w: {'conv1.weight': torch.zeros(64, 3, 7, 7)}, {},
                        r'1 tensors of no known kind \(conv1\.weight \[64, 3, 7, 7\], …\): expected one of usp_mm, '),
    'empty': (lambda w: {'epoch': 3}, {}, r'holds no weights: .*has epoch \(int\)'),
    'unknown kind': (dict, dict(from_='lightingdit'), r"unknown kind of checkpoint 'lightingdit'.*did you mean 'lightningdit'"),
    'unknown target': (dict, dict(to='difusers'), r"unknown target 'difusers'.*did you mean 'diffusers'"),
    'unknown set': (dict, dict(weights='emma'), r"unknown set of weights 'emma'.*did you mean 'ema'"),
    'no two sets': (dict, dict(weights='ema'), r"weights='ema': the file has one unnamed set of weights, leave weights out"),
    'transposed': (lambda w: changed(w, 'blocks.0.mlp.fc1.weight', torch.zeros(48, 192)), {},
                   r'blocks\.0\.mlp\.fc1\.weight \[48, 192\] instead of \[H, 48\]'),
    'linear patches': (lambda w: changed(w, 'x_embedder.proj.weight', torch.zeros(48, 16)), {},
                       r'x_embedder\.proj\.weight \[48, 16\] instead of \[48, C, P, P\]'),
    'one norm of two': (lambda w: w | {f'blocks.{i}.norm1.weight': torch.ones(48) for i in (0, 1)}, {},
                        r'1 missing: blocks\.0\.norm2\.weight'),
    'not ours': (dict, dict(from_='usp_mm'), r'not a checkpoint of this package \(usp_mm\), but DiT \(dit\)'),
    'numbered': (lambda w: {0: torch.zeros(1)}, {}, r'holds no weights: .*has 0 \(Tensor\)'),
    'nothing to drop': (dict, dict(drop=['projectors.']), r"drop 'projectors\.': no name begins with it"),
    'as a ViT': (dict, dict(to='timm'), r"dit is a generator, which timm's VisionTransformer cannot hold"),
    'argument': (dict, dict(num_heads=3), r'num_heads: of the target diffusers alone'),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_what_does_not_fit_is_one_line_and_nothing_is_written(case, tmp_path):
    spoil, arguments, message = BAD[case]
    torch.save(spoil(official('dit')), tmp_path / 'dit.pt')
    with pytest.raises(ValueError, match=message) as error:
        convert(tmp_path / 'dit.pt', tmp_path / 'out.pth', **arguments)
    assert '\n' not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ['dit.pt']


def test_two_sets_of_two_networks(tmp_path):
    weights = official('dit')
    torch.save(dict(model=weights, ema=official('dit', img_size=96)), tmp_path / 'dit.pt')
    with pytest.raises(ValueError, match=r'of two networks: pos_embed \(1, 16, 48\) and \(1, 36, 48\)'):
        convert(tmp_path / 'dit.pt', tmp_path / 'out.pth')


def test_parts_that_others_have_no_place_for(tmp_path):
    state = {f'backbone.{k}': v for k, v in without(official('timm'), 'head.').items()}
    state |= {'backbone.vae_encoder.quant_conv.bias': torch.zeros(8), 'decode_head.conv_seg.bias': torch.zeros(2)}
    torch.save(dict(state_dict=state), tmp_path / 'ours.pth')
    message = r"timm's ViT has no place for 2 tensors: backbone\.vae_encoder\.quant_conv\.bias \[8\], decode_head"
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / 'ours.pth', tmp_path / 'vit.pth', 'timm')
    report = convert(tmp_path / 'ours.pth', tmp_path / 'vit.pth', 'timm', drop=['backbone.vae_encoder.', 'decode_head.'])
    assert report.dropped['decode_head.conv_seg.bias'] == 'as asked'
    assert len(report.written) == len(state) - 2
    convert(tmp_path / 'ours.pth', tmp_path / 'same.safetensors')
    assert equal(load_file(tmp_path / 'same.safetensors'), state)


# ---------------------------------------------------------------------- files


def test_existing_files_are_replaced_only_when_asked(tmp_path):
    torch.save(official('dit'), tmp_path / 'dit.pt')
    out = tmp_path / 'out.pth'
    out.write_text('mine')
    with pytest.raises(FileExistsError, match=r"out\.pth' exists: .*--force"):
        convert(tmp_path / 'dit.pt', out)
    assert out.read_text() == 'mine'
    convert(tmp_path / 'dit.pt', out, force=True)
    assert 'denoiser.pos_embed' in saved(out)['state_dict']
    with pytest.raises(ValueError, match='is the file to convert'):
        convert(out, out, force=True)
    with pytest.raises(ValueError, match=r"holds '.*dit\.pt', which is to be converted"):
        convert(tmp_path / 'dit.pt', tmp_path, 'diffusers', force=True)


def test_names_of_files(tmp_path):
    torch.save(official('dit'), tmp_path / 'dit.pt')
    with pytest.raises(ValueError, match=r"usp_mm is written to \.ckpt or \.pt or \.pth or \.safetensors, not to '\.bin'"):
        convert(tmp_path / 'dit.pt', tmp_path / 'x.bin')
    with pytest.raises(ValueError, match='diffusers is written to a folder'):
        convert(tmp_path / 'dit.pt', tmp_path / 'x.safetensors', 'diffusers')
    with pytest.raises(FileNotFoundError, match=r"'.*nowhere' does not exist: create it first"):
        convert(tmp_path / 'dit.pt', tmp_path / 'nowhere' / 'x.pth')
    with pytest.raises(FileNotFoundError, match=r"'.*no\.pt' does not exist"):
        convert(tmp_path / 'no.pt', tmp_path / 'x.pth')
    save_official('dit', tmp_path / 'both.pt')
    with pytest.raises(ValueError, match='one of model and ema under these names: choose with weights'):
        convert(tmp_path / 'both.pt', tmp_path / 'x.safetensors', 'official')


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_a_failed_write_leaves_nothing(ending, tmp_path, monkeypatch):
    save_file(official('dit'), tmp_path / 'dit.safetensors')

    def fail(content, file, *_, **__):
        with open(file, 'wb') if not hasattr(file, 'write') else file as opened:
            opened.write(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('usp_mm.checkpoints.write.torch.save', fail)
    monkeypatch.setattr('usp_mm.fileio.checksums.save_file', fail)
    with pytest.raises(OSError, match='the disk is full'):
        convert(tmp_path / 'dit.safetensors', tmp_path / f'out{ending}')
    assert [path.name for path in tmp_path.iterdir()] == ['dit.safetensors']


def test_only_a_tensor_itself_is_written(tmp_path):
    """Not the storage that it is a view of."""
    weights = {name: torch.cat([value, value])[: len(value)] for name, value in official('timm').items()}
    torch.save(weights, tmp_path / 'views.pth')
    convert(tmp_path / 'views.pth', tmp_path / 'ours.pth')
    assert (tmp_path / 'ours.pth').stat().st_size < 0.6 * (tmp_path / 'views.pth').stat().st_size
