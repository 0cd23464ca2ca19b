"""tools/knn.py as a user runs it, and the features that it keeps."""

import json

import pytest
import torch
from helpers.probe_world import CONFIGS, ProbeWorld
from helpers.small_world import run_tool
from safetensors.torch import load_file, save_file

from usp_mm.probing.data import open_data
from usp_mm.probing.features import block_features, load_frozen
from usp_mm.probing.knn_probe import check_knn, feature_file, feature_key, kept_features, knn_probe


@pytest.fixture(scope='module')
def world(demo_data, tiny_vae_folder, tmp_path_factory):
    return ProbeWorld(tmp_path_factory.mktemp('probe'), demo_data, tiny_vae_folder)


def load(world, name, **kwargs):
    return load_frozen(world.config(name), world.checkpoint(name), device='cpu', **kwargs)


def data_of(world, split='val', root=None):
    return open_data(world.config('usp'), (root or world.caches) / split, training=False)


def key_of(world, model, data, layer=4, checkpoint='c' * 64):
    return feature_key(model, data, layer, checkpoint, world.config('usp').model.to_dict())


@pytest.mark.slow
def test_the_tool_encodes_once(world, tmp_path):
    command = [CONFIGS['usp'], world.checkpoint('usp'), '--data', world.images, '--device', 'cpu', '--work-dir', tmp_path]
    options = ['--cfg-options', *world.options]
    done = run_tool('tools/knn.py', *command, '--k', 1, 5, '--pool', 'cls', *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'knn.json').read_text())
    assert [row['k'] for row in found['results']] == [1, 5]
    assert (found['layer'], found['pool'], found['temperature'], found['num_train'], found['num_val']) == (
        4,
        'cls',
        0.07,
        40,
        20,
    )
    files = sorted(tmp_path.glob('features-*.safetensors'))
    assert len(files) == 2
    assert all(path.name.startswith(f'features-{found["checkpoint_sha256"][:12]}-') for path in files)
    assert sorted(load_file(path)['features'].shape for path in files) == [(20, 128), (40, 128)]
    before = [path.stat().st_mtime_ns for path in files]

    again = run_tool('tools/knn.py', *command, '--k', 5, '--pool', 'cls', *options)
    assert again.returncode == 0, again.stderr
    assert (again.stdout + again.stderr).count(f"' from '{tmp_path}/features-") == 2
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.glob('features-*.safetensors'))] == before
    assert json.loads((tmp_path / 'knn.json').read_text())['results'] == found['results'][1:]


@pytest.mark.slow
def test_the_tool_on_a_generator(world, tmp_path):
    command = [CONFIGS['dit'], world.checkpoint('dit'), '--train', world.caches / 'train', '--val', world.caches / 'train']
    words = ['--k', 1, '--layer', 2, '--device', 'cpu', '--work-dir', tmp_path, '--cfg-options', *world.options]
    done = run_tool('tools/knn.py', *command, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / 'knn.json').read_text())
    assert found['results'] == [dict(k=1, top1=100.0, top5=100.0)]  # every sample is its own neighbour
    assert (found['network'], found['t'], found['weights'], found['layer']) == ('DiT', 0, 'ema', 2)


def test_what_features_are_kept_by(world):
    model, data = load(world, 'usp'), data_of(world)
    others = [
        key_of(world, model, data, layer=3),
        key_of(world, model, data, checkpoint='d' * 64),
        key_of(world, load(world, 'usp', pool='cls'), data),
        key_of(world, model, data_of(world, 'train')),
        key_of(world, model, data_of(world, root=world.images)),
        key_of(world, load(world, 'sit'), data),
        key_of(world, load(world, 'sit', t=0.5), data),
        key_of(world, load(world, 'sit', t=0.5, seed=1), data),
        key_of(world, load(world, 'sit', weights='model'), data),
    ]
    files = {feature_file(world.folder, key) for key in (key_of(world, model, data), *others)}
    assert len(files) == 1 + len(others)
    same = key_of(world, load(world, 'usp', seed=1), data_of(world))  # without noise the seed changes nothing
    assert feature_file(world.folder, same) == feature_file(world.folder, key_of(world, model, data))


def test_features_of_images_are_kept_by_how_they_are_decoded(world, monkeypatch):
    model = load(world, 'usp')
    images, cache = data_of(world, root=world.images), data_of(world)
    before = [key_of(world, model, data) for data in (images, cache)]
    monkeypatch.setattr('usp_mm.probing.knn_probe.DECODING', 'RGB in another way')
    assert [key_of(world, model, data) == key for data, key in zip((images, cache), before, strict=True)] == [False, True]


def test_kept_features_are_the_models(world, tmp_path):
    model, data = load(world, 'usp'), data_of(world)
    key = key_of(world, model, data)
    features, labels = kept_features(model, data, 4, tmp_path / 'new', key, batch_size=7)
    batch = next(iter(data.loader([list(range(20))])))
    latents = model.preprocessor(batch)['inputs']
    torch.testing.assert_close(features, block_features(model.network, latents, [4])[0], atol=1e-5, rtol=0)
    assert labels.tolist() == data.dataset.get_gt_labels().tolist()
    again = kept_features(model, data, 4, tmp_path / 'new', key, batch_size=20)
    assert torch.equal(again[0], features) and torch.equal(again[1], labels)

    path = feature_file(tmp_path / 'new', key)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"safetensors' is broken .*: delete it"):
        kept_features(model, data, 4, tmp_path / 'new', key, batch_size=20)
    save_file(dict(features=features, labels=labels), path, metadata=dict(key='another'))
    with pytest.raises(ValueError, match='of another model or of other data: delete it'):
        kept_features(model, data, 4, tmp_path / 'new', key, batch_size=20)


def test_probe_by_hand():
    train = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]), torch.tensor([0, 1, 1])
    val = torch.tensor([[2.0, -0.1], [0.1, 2.0]]), torch.tensor([0, 1])
    # of the first query: cosines 0.999 (class 0), 0.989 (1), -0.050 (1): one near vote of 0 loses against two of 1
    assert knn_probe(train, val, 2, [1, 2, 3], temperature=10.0) == [
        dict(k=1, top1=100.0, top5=None),
        dict(k=2, top1=100.0, top5=None),
        dict(k=3, top1=50.0, top5=None),
    ]
    assert knn_probe(train, val, 2, [3], temperature=0.01) == [dict(k=3, top1=100.0, top5=None)]


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(ks=[10, 50]), 'k=50 neighbours must be from 1 to 40'),
        (dict(temperature=0.0), r'temperature=0\.0 must be positive'),
        (dict(layer=5), 'layer 5 is not there'),
    ],
)
def test_bad_settings(world, change, message):
    settings = {'layer': 4, 'ks': [10], 'temperature': 0.07, **change}
    with pytest.raises(ValueError, match=message):
        check_knn(load(world, 'usp'), data_of(world, 'train'), data_of(world), **settings)
