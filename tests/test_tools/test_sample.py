"""tools/sample.py as a user runs it: pictures, and one file of samples however it comes about."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.small_world import ROOT, run_tool
from mmengine.config import Config
from mmengine.logging import MMLogger
from PIL import Image

from usp_mm.apis import load_generator, sample_classes, sample_trajectory, write_samples
from usp_mm.cli.sample import main
from usp_mm.registry import MODELS
from usp_mm.sampling.draw import requested_classes

CONFIG = 'configs/sit/sit-tiny-p2_1xb64-2k_digits.py'
NUM = 24
CLASSES = tuple(f'digit {i}' for i in range(10))


def build(vae, **changes):
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.merge_from_dict({'model.data_preprocessor.vae.path': str(vae), **changes})
    return MODELS.build(cfg.model)


@pytest.fixture(scope='module')
def trained(tiny_vae_folder, tmp_path_factory):
    """Checkpoints of an untrained generator, with and without average, and the options that fit it."""
    folder = tmp_path_factory.mktemp('trained')
    torch.manual_seed(0)
    model = build(tiny_vae_folder)
    for parameter in model.parameters():  # an untrained one's output would be 0
        if parameter.ndim < 3:
            torch.nn.init.normal_(parameter.data, std=0.05)
    weights, meta = model.state_dict(), dict(dataset_meta=dict(classes=CLASSES))
    torch.save(dict(state_dict=weights, meta=meta), folder / 'iter_1.pth')
    orig = {name: tensor for name, tensor in weights.items() if not name.startswith('denoiser_ema.')}
    torch.save(dict(state_dict=orig), folder / 'orig.pth')
    return folder, [f'model.data_preprocessor.vae.path={tiny_vae_folder}', 'model.sampler.num_steps=4']


def command(trained, out, *words):
    folder, options = trained
    settings = ['--num', NUM, '--out', out, '--seed', 3, '--guidance', 2, '--steps', 5]
    return ['tools/sample.py', CONFIG, folder / 'iter_1.pth', *settings, *words, '--cfg-options', *options]


def run(*words, threads=1, processes=1):
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', processes, '--'] if processes > 1 else []
    return run_tool(*launcher, *words, env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': str(threads)})


@pytest.fixture(scope='module')
def reference(trained, tmp_path_factory):
    """What one process with batches of 4 writes: samples.npz, grid.png, movie.gif, and what it prints."""
    folder = tmp_path_factory.mktemp('reference')
    pictures = [
        '--classes',
        7,
        'DIGIT 3:1',
        '--per-class',
        2,
        '--grid',
        folder / 'grid.png',
        '--trajectory',
        folder / 'movie.gif',
    ]
    done = run(*command(trained, folder / 'samples.npz', '--batch-size', 4, *pictures), threads=2)
    assert done.returncode == 0, done.stderr
    assert '24/24' in done.stderr
    assert 'to use K cores: torchrun --nproc-per-node K --no-python usp sample' in done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope='module')
def model(trained):
    """The same in this process."""
    options = {'model.data_preprocessor.vae.path': trained[1][0].split('=')[1], 'model.sampler.num_steps': 5}
    return load_generator(CONFIG, trained[0] / 'iter_1.pth', 'cpu', {**options, 'model.guidance.scale': 2.0})


@pytest.mark.slow
def test_one_process_with_batches_of_4(trained, reference, model):
    folder, printed = reference
    assert f'{folder}/samples.npz: 24 samples, described in {folder}/samples.npz.json' in printed
    with np.load(folder / 'samples.npz') as samples:
        images, labels = samples['arr_0'], samples['arr_1']
    assert images.shape == (NUM, 64, 64, 3) and images.dtype == np.uint8 and images.std() > 5
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = model.model.sample([17], labels[17:18], seed=3).permute(0, 2, 3, 1)
    torch.set_num_threads(before)
    np.testing.assert_array_equal(alone[0].numpy(), images[17])
    facts = json.loads((folder / 'samples.npz.json').read_text())
    assert facts['sampler']['name'] == 'SDESampler' and facts['sampler']['num_steps'] == 5 and facts['guidance']['scale'] == 2
    assert facts['config'] == 'sit-tiny-p2_1xb64-2k_digits' and facts['checkpoint'] == str(trained[0] / 'iter_1.pth')
    assert (facts['sample_model'], facts['label_mode'], facts['num_classes'], facts['seed']) == ('ema', 'random', 10, 3)


@pytest.mark.slow
def test_pictures(reference, model):
    folder, printed = reference
    assert 'row 1: 2 of class 7 (digit 7)' in printed and 'row 2: 1 of class 3 (digit 3)' in printed
    grid = np.asarray(Image.open(folder / 'grid.png'))
    left = grid.shape[1] - (2 + 2 * 66)  # the rows' names
    assert grid.shape[0] == 2 + 2 * 66 and 20 < left < 100
    grid = grid[:, left:]
    rows = sample_classes(model, ['digit 7:2', '3:1'], seed=3)
    for (top, side), picture in zip([(0, 0), (0, 1), (1, 0)], [*rows[0], *rows[1]], strict=True):
        cell = grid[2 + 66 * top :, 2 + 66 * side :][:64, :64]
        assert np.abs(cell.astype(int) - picture).max() <= 1  # another number of threads
    assert (grid[68:, 68:] == 255).all()
    frames = sample_trajectory(model, [7, '3:1'], 2, seed=3)
    np.testing.assert_array_equal(frames[-1][0], rows[0])
    assert frames[0][0].tolist() != rows[0].tolist()
    with Image.open(folder / 'movie.gif') as movie:
        assert movie.n_frames == len(frames) == 5 and movie.size == (left + 134, 134)


@pytest.mark.slow
def test_two_processes_with_batches_of_3(trained, reference, tmp_path):
    out = tmp_path / 'samples.npz'
    done = run(*command(trained, out, '--batch-size', 3), processes=2)
    assert done.returncode == 0, done.stderr
    assert '24/24' in done.stderr
    assert out.read_bytes() == (reference[0] / 'samples.npz').read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ['samples.npz', 'samples.npz.json', 'samples.npz.lock']


@pytest.mark.slow
def test_killed_and_continued_by_two_processes(trained, reference, tmp_path):
    out, parts = tmp_path / 'samples.npz', tmp_path / 'samples.npz.parts'
    words = [sys.executable, *map(str, command(trained, out, '--batch-size', 5))]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, 'OMP_NUM_THREADS': '1'}, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(parts.glob('part-*.npy'))) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in parts.glob('part-*.npy')}
    assert 4 <= len(finished) < NUM and not out.exists()
    refused = mistake(trained, '--num', NUM, '--out', out, '--seed', 4, '--guidance', 2, '--steps', 5)
    assert refused.startswith(f"'{out}' was begun with other settings (seed: 3 there, 4 now; ")
    assert {path: path.stat().st_mtime_ns for path in parts.glob('part-*.npy')} == finished

    again = run(*command(trained, out, '--batch-size', 3), processes=2)
    assert again.returncode == 0, again.stderr
    assert f"continuing '{out}': {len(finished)} of 24 samples are there" in again.stdout + again.stderr
    assert out.read_bytes() == (reference[0] / 'samples.npz').read_bytes() and not parts.exists()


def mistake(trained, *words, checkpoint='iter_1.pth', config=CONFIG, options=()):
    """What the tool, in this process, says is wrong."""
    words = [config, trained[0] / checkpoint, *words, '--cfg-options', *trained[1], *options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['sample.py', *map(str, words)])
        patch.chdir(ROOT)
        with pytest.raises((ValueError, OSError)) as caught:
            main()
    return str(caught.value)


GRID = ['--classes', '3', '--grid']


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ([], 'nothing to do: give --classes with --grid or --trajectory, or --num with --out'),
        (['--grid', 'OUT/a.png'], '--classes goes with --grid or --trajectory, and they with it'),
        (['--num', 8], '--num goes with --out, and it with --num'),
        (['--num', 0, '--out', 'OUT/a.npz'], '--num 0 must be 1 or more'),
        (['--num', 8, '--out', 'OUT/a.npy'], "--out 'OUT/a.npy' must end in .npz"),
        ([*GRID, 'OUT/b/a.png'], "--grid: cannot write 'OUT/b/a.png': folder 'OUT/b' does not exist, create it first"),
        ([*GRID, 'OUT/a.jpg'], "--grid 'OUT/a.jpg' must end in .png"),
        ([*GRID, 'OUT/a.png', '--seed', -1], '--seed -1 must be from 0 to 2^56 - 1'),
        ([*GRID, 'OUT/a.png', '--guidance', -1], 'guidance scale=-1.0 must be 0 or more'),
        (['--classes', 10, '--grid', 'OUT/a.png'], 'class 10 is out of range: the generator has 10 classes, 0 to 9'),
        (
            ['--classes', 'digitt 7', '--grid', 'OUT/a.png'],
            "unknown class 'digitt 7': expected a number below 10 or a name; did",
        ),
    ],
)
def test_mistakes_in_the_command(trained, tmp_path, words, message):
    words = [str(word).replace('OUT', str(tmp_path)) for word in words]
    assert mistake(trained, *words).startswith(message.replace('OUT', str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(checkpoint='nothing.pth'), r'nothing\.pth is not a file'),
        (dict(checkpoint='orig.pth'), r"'.*orig\.pth' has no averaged \(EMA\) weights: .* --weights model"),
        (dict(config='configs/sit/none.py'), r"no config at 'configs/sit/none\.py'"),
        (
            dict(options=['model.denoiser.norm_affine=False']),
            r'does not fit the config: 32 unexpected \(denoiser\.blocks\.0\.norm1\.weight, .*, …\): give the config it was',
        ),
        (
            dict(options=['model.denoiser.img_size=128']),
            r'2 of another shape \(denoiser\.pos_embed \[1, 16, 128\] instead of \[1, 64, 128\]',
        ),
        (dict(options=['model.sampler.nm_steps=5']), "unknown key 'nm_steps' in model.sampler: SDESampler takes"),
        (dict(options=['model.sampler.diffusion=sbdm']), "diffusion='sbdm' is infinite at t = 0"),
    ],
)
def test_config_and_checkpoint_must_fit(trained, tmp_path, changes, message):
    assert re.search(message, mistake(trained, *GRID, tmp_path / 'a.png', **changes))


def test_config_and_checkpoint_are_read_once_and_by_any_name(trained, tmp_path, tool_here, counts, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [trained[0] / 'iter_1.pth', '--classes', '3:1', '--grid', tmp_path / 'a.png', '--steps', 2]
    code, printed = tool_here('tools/sample.py', Path(CONFIG).stem, *words, '--cfg-options', *trained[1])
    assert code == 0 and 'row 1: 1 of class 3 (digit 3)' in printed and (tmp_path / 'a.png').is_file()
    assert counts == {'checks': 1, 'iter_1.pth': 1}


def test_config_of_another_stage(trained, tmp_path):
    other = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
    with pytest.raises(ValueError, match=r"sampling needs the config of a generator, this one has model\.type 'USP'"):
        load_generator(other, trained[0] / 'iter_1.pth')


def test_steps_of_a_sampler_that_chooses_them_itself(trained, tmp_path, tiny_vae_folder):
    config = tmp_path / 'ode.py'
    sampler = "dict(_delete_=True, type='ODESampler', method='dopri5', num_steps=4)"
    config.write_text(f"_base_ = '{ROOT / CONFIG}'\nmodel = dict(sampler={sampler})\n")
    (trained[0] / 'broken.pth').write_bytes(b'must not be read')
    said = mistake(trained, *GRID, tmp_path / 'a.png', '--steps', 5, config=config, checkpoint='broken.pth')
    assert said.startswith("--steps 5: the sampler chooses its own steps, {'name': 'ODESampler', 'method': 'dopri5'")


def test_weights_without_average(trained, tiny_vae_folder):
    folder, _ = trained
    options = {'model.data_preprocessor.vae.path': str(tiny_vae_folder), 'model.sampler.num_steps': 2}
    model = load_generator(CONFIG, folder / 'orig.pth', 'cpu', options, sample_model='model')
    full = load_generator(CONFIG, folder / 'iter_1.pth', 'cpu', options)
    assert model.model.denoiser_ema is None and full.model.denoiser_ema is not None
    np.testing.assert_array_equal(sample_classes(model, [1], 1)[0], sample_classes(full, [1], 1, sample_model='model')[0])
    assert model.classes is None and full.classes == CLASSES
    assert full.weights == full.checkpoint == folder / 'iter_1.pth' and full.config.model.sampler.num_steps == 2
    assert sample_classes(full, [1], 1)[0].tolist() != sample_classes(model, [1], 1)[0].tolist()


def test_a_generator_built_from_a_registry_writes_what_a_loaded_one_does(trained, tiny_vae_folder, tmp_path):
    options = {'model.data_preprocessor.vae.path': str(tiny_vae_folder), 'model.sampler.num_steps': 2}
    loaded = load_generator(CONFIG, trained[0] / 'iter_1.pth', 'cpu', options)
    built = build(tiny_vae_folder, **{'model.sampler.num_steps': 2})
    built.load_state_dict(loaded.model.state_dict())
    facts = [write_samples(model, tmp_path / f'{i}.npz', 3, seed=3) for i, model in enumerate((loaded, built))]
    assert (tmp_path / '0.npz').read_bytes() == (tmp_path / '1.npz').read_bytes()
    own = {'config', 'checkpoint', 'checkpoint_sha256', 'denoiser', 'classes'}
    assert {key for key in facts[0] if facts[0][key] != facts[1][key]} == own and facts[1].keys() - facts[0] == {
        'weights_sha256'
    }
    assert [facts[1][key] for key in own] == [None] * 5
    np.testing.assert_array_equal(sample_classes(built, [7], 1)[0], sample_classes(loaded, ['digit 7'], 1)[0])


def test_names_in_the_config_serve_where_the_checkpoint_has_none(trained, tiny_vae_folder):
    cfg = Config.fromfile(ROOT / CONFIG)
    cfg.model.data_preprocessor.vae.path = str(tiny_vae_folder)
    cfg.val_dataloader.dataset.classes = list('zyxwvutsrq')
    steps = cfg.model.sampler.num_steps
    model = load_generator(cfg, trained[0] / 'orig.pth', 'cpu', {'model.sampler.num_steps': 2}, sample_model='model')
    assert [request.label for request in requested_classes(model, ['x', 'q'], 1)] == [2, 9]
    assert cfg.model.sampler.num_steps == steps != 2 and cfg.model.ema is not None, 'the given config is left alone'
    with pytest.raises(
        ValueError, match=r"checkpoint '.*iter_1\.pth' and the config's val_dataloader differ \(10 each\): missing"
    ):
        load_generator(cfg, trained[0] / 'iter_1.pth', 'cpu')


def test_classes_that_were_never_trained_are_named(trained, tmp_path, tiny_vae_folder, monkeypatch):
    warnings, logger = [], MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'warning', warnings.append)
    content = torch.load(trained[0] / 'iter_1.pth', weights_only=True)
    options = {'model.data_preprocessor.vae.path': str(tiny_vae_folder)}
    for classes in (CLASSES[:5], [*CLASSES, 'more']):
        torch.save(dict(content, meta=dict(dataset_meta=dict(classes=classes))), tmp_path / f'{len(classes)}.pth')
    load_generator(CONFIG, trained[0] / 'iter_1.pth', 'cpu', options)
    assert not [line for line in warnings if 'never saw' in line]
    load_generator(CONFIG, tmp_path / '5.pth', 'cpu', options)
    told = [line for line in warnings if 'never saw' in line]
    assert len(told) == 1 and 'was trained on 5 classes, model.denoiser.num_classes is 10: samples of classes 5 to 9' in told[0]
    with pytest.raises(ValueError, match=r"11\.pth' names 11 classes, model\.denoiser\.num_classes is 10"):
        load_generator(CONFIG, tmp_path / '11.pth', 'cpu', options)


def test_guidance_and_precision_change_the_samples(trained, model):
    plain = sample_classes(model, [1], 1, seed=3)[0].astype(int)
    model.model.sample_dtype = 'bfloat16'
    rounded = sample_classes(model, [1], 1, seed=3)[0].astype(int)
    model.model.sample_dtype = 'float32'
    assert 0 < np.abs(plain - rounded).max() < 40
    model.model.guidance.scale = 1.0
    unguided = sample_classes(model, [1], 1, seed=3)[0].astype(int)
    model.model.guidance.scale = 2.0
    assert np.abs(plain - unguided).max() > 0
