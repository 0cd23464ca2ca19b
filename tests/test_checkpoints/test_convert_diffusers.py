"""DiT in diffusers' format: its numbers are ours, there and back it is the same bit for bit, and what it cannot hold."""

import json
import pickle
import shutil
from contextlib import nullcontext
from unittest.mock import Mock

import pytest
import torch
from helpers.checkpoint_files import build, equal, load_strictly, official, save_official
from helpers.golden import load
from helpers.vae_files import Bomb
from safetensors.torch import load_file, save_file

from usp_mm.checkpoints import convert
from usp_mm.checkpoints.diffusers_dit import check_table
from usp_mm.fileio import atomic
from usp_mm.fileio.atomic import _machine
from usp_mm.functional.pos_embed import sincos_table

WEIGHTS = 'diffusion_pytorch_model.safetensors'


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """A flat official DiT file and its pipeline folder without VAE."""
    folder = tmp_path_factory.mktemp('plain')
    torch.save(official('dit'), folder / 'dit.pt')
    report = convert(folder / 'dit.pt', folder / 'pipeline', 'diffusers', num_heads=3)
    return folder / 'dit.pt', folder / 'pipeline', report


def copy_of(pipeline, folder):
    """The transformer alone, to be changed."""
    out = folder / 'transformer'
    out.mkdir()
    for name in ('config.json', WEIGHTS):
        (out / name).write_bytes((pipeline / 'transformer' / name).read_bytes())
    return out


@pytest.mark.parametrize(('kind', 'key'), [('dit', 'out_without_affine'), ('usp-dit', 'out')])
def test_a_pipeline_gives_the_golden_numbers(kind, key, tmp_path, tiny_vae_folder):
    """Plain DiT, and USP's with its norms folded; the pipeline has a VAE of its own."""
    from diffusers import DiTPipeline

    save_official(kind, tmp_path / 'official.pt')
    convert(tmp_path / 'official.pt', tmp_path / 'ours.pth')
    out = tmp_path / 'pipeline'
    report = convert(tmp_path / 'ours.pth', out, 'diffusers', weights='model', num_heads=3, vae=tiny_vae_folder)
    assert any('there is no way back' in note for note in report.notes) == (kind == 'usp-dit')
    pipeline = DiTPipeline.from_pretrained(out)
    golden = load('dit_forward')
    with torch.no_grad():
        found = pipeline.transformer(*(torch.from_numpy(golden[name]) for name in ('x', 't', 'y'))).sample
    torch.testing.assert_close(found, torch.from_numpy(golden[key]), rtol=0, atol=1e-5)
    scheduler = pipeline.scheduler.config
    assert (scheduler.beta_start, scheduler.beta_end, scheduler.beta_schedule) == (1e-4, 0.02, 'linear')
    assert (scheduler.clip_sample, scheduler.prediction_type, scheduler.num_train_timesteps) == (False, 'epsilon', 1000)
    assert pipeline.vae.config.scaling_factor == 0.5
    assert equal(load_file(out / 'vae' / WEIGHTS), load_file(tiny_vae_folder / WEIGHTS))


def test_there_and_back(plain, tmp_path):
    source, pipeline, report = plain
    weights = torch.load(source, weights_only=True)
    assert report.written['transformer_blocks.1.attn1.to_k.bias'] == ('blocks.1.attn.qkv.bias',)
    assert 'no VAE in it: ' in report.notes[-1]
    assert report.dropped == {'pos_embed': 'diffusers computes the sine-cosine table, which it is'}
    for folder in (pipeline, pipeline / 'transformer'):
        back = convert(folder, tmp_path / 'back.pt', 'official', force=True)
        assert equal(torch.load(tmp_path / 'back.pt', weights_only=True), weights)
        assert len(back.written['t_embedder.mlp.0.weight']) == 2  # each block has a copy
    convert(pipeline, tmp_path / 'ours.pth')
    assert equal(load_strictly(build('dit'), tmp_path / 'ours.pth').denoiser.state_dict(), weights)
    convert(tmp_path / 'ours.pth', tmp_path / 'again', 'diffusers', num_heads=3)
    files = [path / 'transformer' / WEIGHTS for path in (pipeline, tmp_path / 'again')]
    assert equal(*map(load_file, files))


def test_conversion_does_not_depend_on_the_time_embedding_being_corrected(plain, tmp_path, monkeypatch):
    """The same files either way; read without the correction, they are near DiT's numbers and not at them."""
    from diffusers import DiTTransformer2DModel

    source, pipeline, report = plain
    monkeypatch.setenv('USP_DIFFUSERS_TIMES', 'off')
    again = convert(source, tmp_path / 'pipeline', 'diffusers', num_heads=3)
    for name in ('config.json', WEIGHTS):
        assert (tmp_path / 'pipeline/transformer' / name).read_bytes() == (pipeline / 'transformer' / name).read_bytes()
    assert again.notes[:-1] == report.notes[:-1] and any('unless USP_DIFFUSERS_TIMES=off' in note for note in again.notes)
    convert(tmp_path / 'pipeline', tmp_path / 'back.pt', 'official')
    assert equal(torch.load(tmp_path / 'back.pt', weights_only=True), torch.load(source, weights_only=True))

    golden = load('dit_forward')
    inputs, wanted = [torch.from_numpy(golden[name]) for name in ('x', 't', 'y')], golden['out_without_affine']
    off = {}
    for asked in ('on', 'off'):
        monkeypatch.setenv('USP_DIFFUSERS_TIMES', asked)
        network = DiTTransformer2DModel.from_pretrained(tmp_path / 'pipeline', subfolder='transformer')
        with torch.no_grad():
            off[asked] = float((network(*inputs).sample - torch.from_numpy(wanted)).abs().max())
    assert off['on'] < 1e-5 < 1e-4 < off['off']


def test_pickled_and_sharded_folders(plain, tmp_path):
    """As facebook/DiT-XL-2-256 has it, and as save_pretrained splits large networks."""
    folder = copy_of(plain[1], tmp_path)
    weights = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / 'diffusion_pytorch_model.bin')
    config = json.loads((folder / 'config.json').read_text()) | {'_class_name': 'Transformer2DModel', 'norm_eps': 1e-5}
    (folder / 'config.json').write_text(json.dumps(config))
    report = convert(folder, tmp_path / 'a.pt', 'official')
    assert equal(torch.load(tmp_path / 'a.pt', weights_only=True), official('dit'))
    assert any('norm_eps is 1e-05' in note for note in report.notes)

    (folder / 'diffusion_pytorch_model.bin').unlink()
    names = sorted(weights)
    parts = {f'part-{i}.safetensors': names[i::2] for i in (0, 1)}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file)
    index = {'weight_map': {name: file for file, part in parts.items() for name in part}}
    (folder / f'{WEIGHTS}.index.json').write_text(json.dumps(index))
    convert(folder, tmp_path / 'b.pt', 'official')
    assert equal(torch.load(tmp_path / 'b.pt', weights_only=True), official('dit'))
    (folder / f'{WEIGHTS}.index.json').write_text(json.dumps({'weight_map': {'a': '../x.safetensors'}}))
    with pytest.raises(ValueError, match='names files outside of its folder'):
        convert(folder, tmp_path / 'c.pt', 'official')


def test_folders_of_something_else(plain, tmp_path, tiny_vae_folder):
    out = tmp_path / 'out.pth'
    with pytest.raises(ValueError, match="is a diffusers 'AutoencoderKL', expected a DiTTransformer2DModel"):
        convert(tiny_vae_folder, out)
    with pytest.raises(FileNotFoundError, match=r'neither transformer/config\.json nor config\.json'):
        convert(tmp_path, out)
    folder = copy_of(plain[1], tmp_path)
    with pytest.raises(ValueError, match=r'config\.json beside them: give the folder'):
        convert(folder / WEIGHTS, out)
    weights = load_file(folder / WEIGHTS)
    name = 'transformer_blocks.1.norm1.emb.timestep_embedder.linear_1.bias'
    save_file(weights | {name: weights[name] + 1}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r'blocks\.1\..*linear_1\.bias differs from .*blocks\.0\.'):
        convert(folder, out)
    save_file(weights | {'transformer_blocks.0.attn2.to_q.weight': torch.zeros(2)}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"1 tensors that are none of diffusers' DiT: .*attn2\.to_q\.weight \[2\]"):
        convert(folder, out)
    (folder / WEIGHTS).unlink()
    (folder / 'diffusion_pytorch_model.bin').write_bytes(pickle.dumps(Bomb(tmp_path / 'ran'), protocol=2))
    with pytest.raises(ValueError, match='run code to be read, which is refused'):
        convert(folder, out)
    assert not out.exists() and not (tmp_path / 'ran').exists()


#: what is done to a DiT's weights, arguments, error
BAD = {
    'table': (lambda w: w | {'pos_embed': w['pos_embed'] + 0.1}, {}, r'pos_embed \[1, 16, 48\] differs .* by up to 0\.1,'),
    'no square': (lambda w: w | {'pos_embed': w['pos_embed'][:, 1:]}, {}, r'pos_embed \[1, 15, 48\] is of no square'),
    'heads': (dict, dict(num_heads=None), r'2 blocks of width 48, num_heads=None: give num_heads'),
    'heads that do not divide': (dict, dict(num_heads=5), r'num_heads=5: give num_heads, a divisor'),
    'negative heads': (dict, dict(num_heads=-3), r'num_heads=-3: give num_heads, a divisor'),
    'no "no class"': (dict, dict(num_classes=11), r'has 11 rows for num_classes=11: .*class_dropout=0'),
    '1000 rows': (lambda w: w | {'y_embedder.embedding_table.weight': torch.zeros(1000, 48)}, {}, 'Give num_classes'),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_what_diffusers_cannot_hold(case, tmp_path):
    spoil, arguments, message = BAD[case]
    torch.save(spoil(official('dit')), tmp_path / 'dit.pt')
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / 'dit.pt', tmp_path / 'out', 'diffusers', **{'num_heads': 3, **arguments})
    assert [path.name for path in tmp_path.iterdir()] == ['dit.pt']


@pytest.mark.parametrize('kind', ['sit', 'usp-sit', 'repa', 'lightningdit', 'usp-pretrain'])
def test_networks_that_no_dit_pipeline_samples(kind, tmp_path):
    save_official(kind, tmp_path / 'official.pt')
    message = 'is an encoder' if kind == 'usp-pretrain' else 'no sampler for flow matching'
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / 'official.pt', tmp_path / 'out', 'diffusers', num_heads=3)


def test_a_flow_of_ours_is_known_by_its_config(tmp_path):
    state = {f'denoiser.{name}': value for name, value in official('sit').items()}
    torch.save(
        dict(state_dict=state, meta=dict(cfg="model = dict(objective=dict(type='FlowObjective'))")), tmp_path / 'sit.pth'
    )
    with pytest.raises(ValueError, match='no sampler for flow matching'):
        convert(tmp_path / 'sit.pth', tmp_path / 'out', 'diffusers', num_heads=3)


def test_swiglu_and_rms_norms_of_ours_have_no_place(tmp_path):
    save_official('lightningdit', tmp_path / 'lightning.pt')
    convert(tmp_path / 'lightning.pt', tmp_path / 'ours.pth')
    with pytest.raises(ValueError, match=r'RMSNorm'):
        convert(tmp_path / 'ours.pth', tmp_path / 'out', 'diffusers', num_heads=3)


def test_a_pipeline_is_replaced_when_asked_and_another_folder_never(plain, tmp_path, monkeypatch):
    source, *_ = plain
    arguments = dict(to='diffusers', num_heads=3)
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'thesis.tex').write_text('mine')
    for force in (False, True):
        with pytest.raises(FileExistsError, match='exists'):
            convert(source, out, force=force, **arguments)
    (out / 'thesis.tex').rename(out / 'model_index.json')
    bad = tmp_path / 'vae'
    bad.mkdir()
    (bad / 'config.json').write_text(json.dumps({'_class_name': 'AutoencoderKL', 'latent_channels': 16}))
    with pytest.raises(ValueError, match=r"vae' has 16 latent channels, the network 4"):
        convert(source, out, force=True, vae=bad, **arguments)
    assert (out / 'model_index.json').read_text() == 'mine'
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr('usp_mm.checkpoints.write.save_safe', lambda *_: seen.append((out / 'model_index.json').read_text()))
        patch.setattr('usp_mm.checkpoints.write.write_json', Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            convert(source, out, force=True, **arguments)
    assert seen == ['mine'] and (out / 'model_index.json').read_text() == 'mine', 'it stays while the new one is written'
    convert(source, out, force=True, **arguments)
    assert json.loads((out / 'model_index.json').read_text())['vae'] == [None, None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['out', 'vae']


def test_what_a_killed_conversion_left_is_put_back_or_removed(plain, tmp_path, ended_process):
    """The replaced folder returns, also before the conversion is refused; half a folder and half a file go."""
    source, pipeline, _ = plain
    aside, half = tmp_path / '.out.old', tmp_path / f'.out.{_machine()}-{ended_process}-00000000.tmp'
    for force in (False, True):
        shutil.copytree(pipeline, aside)
        (aside / 'mine').touch()
        half.mkdir()
        (half / WEIGHTS).write_bytes(b'half')
        (tmp_path / f'.out.pth.{_machine()}-{ended_process}-00000000.tmp').write_bytes(b'half')
        atomic._TIDIED.discard(tmp_path)
        with nullcontext() if force else pytest.raises(FileExistsError, match=r"out' exists: .* replace it with --force"):
            convert(source, tmp_path / 'out', 'diffusers', num_heads=3, force=force)
        assert (tmp_path / 'out' / 'mine').exists() != force and not aside.exists()
        if force:
            assert [path.name for path in tmp_path.iterdir()] == ['out']
        else:
            shutil.rmtree(half)
            shutil.rmtree(tmp_path / 'out')


def test_the_table_is_the_one_that_diffusers_computes():
    from diffusers.models.embeddings import PatchEmbed

    theirs = PatchEmbed(32, 32, 2, 4, 1152).pos_embed
    check_table(theirs)
    assert float((theirs.double() - sincos_table(1152, (16, 16))[None]).abs().max()) < 1e-6
