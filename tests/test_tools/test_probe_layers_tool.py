"""tools/probe_layers.py as a user runs it."""

import json
import re
from argparse import ArgumentParser

import pytest
from helpers.probe_world import CONFIGS, ProbeWorld
from helpers.small_world import run_tool
from PIL import Image

from usp_mm.cli.probe_layers import chosen_layers
from usp_mm.config.arguments import add_probe_arguments
from usp_mm.fileio.atomic import sha256
from usp_mm.probing.arguments import split_folders

SHORT = ['--epochs', 2, '--batch-size', 16, '--optimizer', 'adamw']


@pytest.fixture(scope='module')
def world(demo_data, tiny_vae_folder, tmp_path_factory):
    return ProbeWorld(tmp_path_factory.mktemp('probe'), demo_data, tiny_vae_folder)


def run(world, name, *words, checkpoint=None):
    options = ['--cfg-options', *world.options]
    command = [CONFIGS[name], checkpoint or world.checkpoint(name), '--device', 'cpu', *words, *options]
    return run_tool('tools/probe_layers.py', *command)


@pytest.mark.slow
def test_all_layers_of_a_generator_from_a_cache(world, tmp_path):
    done = run(world, 'sit', '--data', world.caches, *SHORT, '--t', 0.5, '--weights', 'model', '--work-dir', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'out' / 'layers.json').read_text())
    assert [row['layer'] for row in found['layers']] == [1, 2, 3, 4]
    assert found['best'] == max(found['layers'], key=lambda row: row['top1'])
    assert all(0 <= row['top1'] <= row['top5'] <= 100 for row in found['layers'])
    assert found['checkpoint_sha256'] == sha256(world.checkpoint('sit'))
    expected = dict(network='SiT', depth=4, weights='model', t=0.5, pool='mean', num_train=40, num_val=20, num_classes=10)
    assert {key: found[key] for key in expected} == expected
    assert found['settings']['lr'] == 0.01 and found['augmented'] is False
    assert Image.open(tmp_path / 'out' / 'layers.png').format == 'PNG'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['layers.json', 'layers.png']
    best = found['best']
    assert f'{best["layer"]} *' in done.stdout and f'{best["top1"]:.2f}' in done.stdout
    assert 'the backbone runs once in all' in done.stdout + done.stderr


@pytest.mark.slow
def test_chosen_layers_of_an_encoder_from_images(world, tmp_path):
    words = ['--layers', 4, 2, 2, '--pool', 'cls', '--no-keep-features', '--work-dir', tmp_path]
    done = run(world, 'usp', '--data', world.images, *SHORT, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'layers.json').read_text())
    assert [row['layer'] for row in found['layers']] == [2, 4]
    assert (found['network'], found['pool'], found['t'], found['weights']) == ('USPViT', 'cls', None, None)
    assert 'the backbone runs once an epoch' in done.stdout + done.stderr


@pytest.mark.slow
def test_a_bad_request_ends_in_one_line(world, tmp_path):
    done = run(world, 'dit', '--data', world.caches, *SHORT, '--t', 1000, '--work-dir', tmp_path / 'out')
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: t=1000.0 is out of range: a DiT takes whole steps from 0 (clean) to 999 (noise)')
    assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['3', '7'], 'layer 7 is not there: the model has blocks 1 to 4'),
        (['0'], 'layer 0 is not there'),
        (['all', '3'], "--layers all 3 must be 'all' or numbers from 1 to 4"),
        (['-1'], "--layers -1 must be 'all' or numbers"),
    ],
)
def test_layers_that_are_not_there(words, message):
    assert chosen_layers(['all'], 4) == [1, 2, 3, 4]
    assert chosen_layers(['3', '2', '3'], 4) == [2, 3]
    with pytest.raises(ValueError, match=re.escape(message)):
        chosen_layers(words, 4)


@pytest.mark.parametrize(
    ('words', 'error', 'message'),
    [
        (['--data', 'none'], FileNotFoundError, "no folder at 'none/train'"),
        (['--train', 'none', '--val', 'none'], FileNotFoundError, "no folder at 'none'"),
        (['--data', 'x', '--train', 'x'], ValueError, '--data stands for --train and --val'),
        (['--train', 'x'], ValueError, 'no data: give --data ROOT'),
        ([], ValueError, 'no data: give --data ROOT'),
    ],
)
def test_folders_that_are_not_there(words, error, message):
    parser = ArgumentParser()
    add_probe_arguments(parser)
    with pytest.raises(error, match=message):
        split_folders(parser.parse_args(['config', 'checkpoint', *words]))
