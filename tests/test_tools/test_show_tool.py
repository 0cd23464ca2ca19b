"""`usp show` and `usp cka` as commands: what they write, and what they refuse."""

import json

import numpy as np
import pytest
import torch
from helpers.small_world import run_tool
from helpers.trained_files import load, picture, small_config, trained
from PIL import Image

from usp_mm.analysis.cka import CKASettings, all_features, compare_blocks, frozen, open_held_out
from usp_mm.analysis.sight import look
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec

SHOW, CKA = 'tools/show.py', 'tools/cka.py'


@pytest.fixture(scope='module')
def world(tmp_path_factory, tiny_vae_folder, demo_data):
    """A folder with checkpoints, a model folder, two pictures and a cache of 20 digits."""
    folder = tmp_path_factory.mktemp('show')
    for kind in ('pretraining', 'generator', 'classifier'):
        trained(kind, tiny_vae_folder, folder / f'{kind}.pth')
    load(folder / 'pretraining.pth').save_pretrained(folder / 'encoder')
    (folder / 'pictures').mkdir()
    for seed in range(2):
        picture(folder / 'pictures' / f'{seed}.png', seed)
    codec = build_codec('tiny', path=str(tiny_vae_folder))
    write_cache(str(demo_data / 'imagenet' / 'val'), folder / 'val', codec, CacheSpec(64, flip=False), num_workers=0)
    return folder


@pytest.mark.slow
def test_a_model_folder_as_a_process(world, tmp_path):
    done = run_tool(SHOW, world / 'encoder', world / 'pictures', '--out', tmp_path / 'new' / 'out', '--device', 'cpu')
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith('out/sight.png and sight.json: 2 images')
    assert sorted(path.name for path in (tmp_path / 'new' / 'out').iterdir()) == ['sight.json', 'sight.png']
    shown = np.asarray(Image.open(tmp_path / 'new' / 'out' / 'sight.png'))
    assert shown.shape[1] == 5 * 132 and 2 * 132 < shown.shape[0] < 2 * 132 + 80  # image, mean, two heads, PCA; titles


def test_the_picture_is_that_of_the_library_and_the_same_each_time(world, tmp_path, tool_here):
    paths = [world / 'pictures' / f'{seed}.png' for seed in range(2)]
    options = ['--layer', 1, '--pca-layer', 2, '--query', 'patches', '--device', 'cpu']
    for name in 'ab':
        code, said = tool_here(SHOW, world / 'pretraining.pth', *paths, '--out', tmp_path / name, *options)
        assert (code, said) == (0, f'{tmp_path}/{name}/sight.png and sight.json: 2 images\n')
    assert (tmp_path / 'a/sight.png').read_bytes() == (tmp_path / 'b/sight.png').read_bytes()
    expected = look(load(world / 'pretraining.pth'), paths, 1, 2, 'patches')
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / 'a/sight.png')), expected.picture)
    facts = json.loads((tmp_path / 'a/sight.json').read_text())
    assert facts == {'model': str(world / 'pretraining.pth'), **expected.facts}
    assert (facts['layer'], facts['pca_layer'], facts['query'], facts['grid']) == (1, 2, 'patches', [4, 4])
    assert 0 < sum(facts['pca_variance']) <= 1 and all(0 < share < 1 for share in facts['to_class_token'])


def test_a_config_with_a_checkpoint_and_a_classifier(world, tmp_path, tool_here, tiny_vae_folder):
    state = torch.load(world / 'pretraining.pth', weights_only=False)['state_dict']
    torch.save(dict(state_dict=state), tmp_path / 'bare.pth')  # it does not hold its config
    small_config('pretraining', tiny_vae_folder).dump(tmp_path / 'config.py')
    options = [world / 'pictures', '--device', 'cpu', '--out']
    assert tool_here(SHOW, tmp_path / 'config.py', tmp_path / 'bare.pth', *options, tmp_path / 'a')[0] == 0
    assert tool_here(SHOW, world / 'encoder', *options, tmp_path / 'b')[0] == 0
    assert (tmp_path / 'a/sight.png').read_bytes() == (tmp_path / 'b/sight.png').read_bytes()
    assert tool_here(SHOW, world / 'classifier.pth', *options, tmp_path / 'c')[0] == 0
    assert json.loads((tmp_path / 'c/sight.json').read_text())['layer'] == 2


def test_what_cannot_be_shown_is_refused_and_nothing_is_written(world, tmp_path, tool_here):
    (tmp_path / 'no.png').write_text('no picture')
    (tmp_path / 'half.png').write_bytes((world / 'pictures/0.png').read_bytes()[:300])
    good = world / 'pictures'
    for words, message in (
        ([world / 'encoder', tmp_path / 'no.png'], f"error: '{tmp_path}/no.png' is no image: leave it out or replace it"),
        ([world / 'encoder', tmp_path / 'half.png'], f"error: cannot decode image '{tmp_path}/half.png'"),
        ([world / 'encoder', tmp_path / 'none.png'], f"error: no image or folder at '{tmp_path}/none.png'"),
        ([world / 'encoder', good, '--layer', 3], 'error: layer 3 is not there: the model has blocks 1 to 2'),
        ([world / 'encoder', good, '--layer', 0], 'error: layer 0 is not there'),
        ([world / 'encoder', good, '--pca-layer', -3], 'error: layer -3 is not there'),
        ([world / 'encoder', good, '--num', 0], 'error: --num 0 must be 1 or more'),
        ([world / 'generator.pth', good], 'is no encoder: give a pretraining checkpoint or a classifier'),
        ([good, good], f"error: '{good}' is not a model folder"),
        (['no_config.py', good], "error: 'no_config.py' is no model folder and no checkpoint"),
        (['no_config.py', tmp_path / 'no.pth', good], f"error: no checkpoint at '{tmp_path}/no.pth'"),
    ):
        code, said = tool_here(SHOW, *words, '--out', tmp_path / 'out', '--device', 'cpu')
        assert code == 1 and message in said, said
    assert not (tmp_path / 'out').exists()


def test_cka_of_two_checkpoints(world, tmp_path, tool_here):
    (tmp_path / 'later').mkdir()
    state = torch.load(world / 'generator.pth', weights_only=False)
    state['state_dict'] = {
        name: x if name.endswith('pos_embed') or not x.is_floating_point() else 1.5 * x
        for name, x in state['state_dict'].items()
    }
    torch.save(state, tmp_path / 'later' / 'generator.pth')
    generators = [world / 'generator.pth', tmp_path / 'later' / 'generator.pth']
    options = ['--data', world / 'val', '--t', 0.5, '--num', 10, '--seed', 4, '--device', 'cpu', '--out', tmp_path / 'out']
    code, said = tool_here(CKA, *generators, '--against', world / 'pretraining.pth', *options)
    assert (code, said.splitlines()[-1]) == (0, f'{tmp_path}/out/cka.png and cka.json: 2 generators, 10 samples')
    assert Image.open(tmp_path / 'out/cka.png').size[0] > 200
    report = json.loads((tmp_path / 'out/cka.json').read_text())
    assert [one['name'] for one in report['generators']] == [f'{world.name}/generator', 'later/generator']
    assert (report['num'], report['pool'], report['seed']) == (10, 'tokens', 4)
    assert (report['against']['kind'], report['against']['t'], report['generators'][0]['t']) == ('encoder', None, 0.5)

    model = load(world / 'generator.pth', load_vae=False)
    data, settings = open_held_out(model, world / 'val'), CKASettings(10)
    encoder = all_features(frozen(load(world / 'pretraining.pth', load_vae=False)), data, settings)
    expected = compare_blocks(encoder, all_features(frozen(model, 0.5, 4), data, settings), 10)
    for key in ('cka', 'other_samples'):
        np.testing.assert_allclose(report['generators'][0][key], expected[key], rtol=1e-6)
    assert report['generators'][1]['cka'] != report['generators'][0]['cka']


def test_cka_of_a_generator_with_itself_and_images(world, tmp_path, tool_here, demo_data):
    copy = tmp_path / 'copy.pth'
    copy.write_bytes((world / 'generator.pth').read_bytes())
    data = ['--data', demo_data / 'imagenet' / 'val', '--pool', 'mean', '--t', 0.3, '--device', 'cpu']
    assert tool_here(CKA, world / 'generator.pth', '--against', copy, *data, '--out', tmp_path / 'out')[0] == 0
    report = json.loads((tmp_path / 'out/cka.json').read_text())
    np.testing.assert_allclose(np.diag(report['generators'][0]['cka']), 1, rtol=1e-9)
    assert report['num'] == 20 and np.max(np.diag(report['generators'][0]['other_samples'])) < 1


def test_what_cka_refuses(world, tmp_path, tool_here):
    encoder, generator = world / 'pretraining.pth', world / 'generator.pth'
    data = ['--data', world / 'val']
    for words, message in (
        ([encoder, '--against', generator, *data], 'is no generator: give encoders as --against'),
        ([generator, '--against', generator, *data], f"error: '{generator}' is given twice"),
        (
            [generator, tmp_path / 'no.pth', '--against', encoder, *data],
            f"error: no model folder or checkpoint at '{tmp_path}/no",
        ),
        ([generator, '--against', encoder, '--data', tmp_path / 'none'], f"error: no folder at '{tmp_path}/none'"),
        ([generator, '--against', encoder, *data, '--t', 2], 'error: t=2.0 is out of range: a SiT takes times from 0'),
        ([generator, '--against', encoder, *data, '--num', 1], 'error: num=1 must be 2 or more'),
        ([generator, '--against', encoder, *data, '--seed', -1], 'error: --seed -1 must be from 0'),
    ):
        code, said = tool_here(CKA, *words, '--out', tmp_path / 'out', '--device', 'cpu')
        assert code == 1 and message in said, said
    assert not (tmp_path / 'out').exists()
