"""Pictures of classes, and files of samples that survive anything, with a generator whose samples are known."""

import errno
import hashlib
import json
import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from fake_generator import SIDE, FakeGenerator
from helpers.full_disk import fill_disk_at
from helpers.held_lock import held_elsewhere

from usp_mm.apis import sample_classes, sample_trajectory, write_samples
from usp_mm.sampling.draw import ShownSteps, StateKeeper
from usp_mm.sampling.parts import SampleParts

NUM = 101  # blocks of two, the last one of one


@pytest.fixture(scope='module', autouse=True)
def blocks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('usp_mm.sampling.parts._FEWEST_BLOCKS', 50)
        yield


def build(folder):
    (folder / 'iter_1.pth').write_bytes(b'weights')
    return FakeGenerator(folder / 'iter_1.pth')


@pytest.fixture
def model(tmp_path):
    return build(tmp_path)


@pytest.fixture(scope='module')
def reference(tmp_path_factory):
    """The bytes that one call with one batch size writes."""
    folder = tmp_path_factory.mktemp('reference')
    write_samples(build(folder), folder / 'samples.npz', NUM, batch_size=30)
    return (folder / 'samples.npz').read_bytes()


def expected_images(index, label, seed=0, steps=5):
    value = (7 * np.asarray(index) + 50 * np.asarray(label) + 3 * seed) % 200 + steps
    return (value[:, None, None, None] + np.arange(SIDE)[:, None] + np.arange(3) + np.zeros((SIDE, 1, 1))).astype(np.uint8)


def test_pictures_of_a_class_do_not_depend_on_the_other_classes(model):
    rows = sample_classes(model.loaded, ['dog:3', 2, 'dog'], per_class=2, seed=1, batch_size=2)
    for row, label, numbers in zip(rows, (1, 2, 1), ([1, 4, 7], [2, 5], [10, 13]), strict=True):
        np.testing.assert_array_equal(row, expected_images(numbers, [label] * len(numbers), seed=1))
    assert model.batches == [2, 2, 2, 1]


def test_pictures_are_those_of_balanced_samples(model, tmp_path):
    write_samples(model.loaded, tmp_path / 'samples.npz', 12, label_mode='balanced', seed=1)
    with np.load(tmp_path / 'samples.npz') as samples:
        for label, row in enumerate(sample_classes(model.loaded, [0, 1, 2], seed=1)):
            np.testing.assert_array_equal(samples['arr_0'][samples['arr_1'] == label], row)


@pytest.mark.parametrize(('steps', 'num_frames'), [(250, 30), (7, 30), (1, 2)])
def test_trajectory_shows_the_states_and_ends_in_the_pictures(tmp_path, steps, num_frames):
    model = FakeGenerator(tmp_path, steps)
    frames = sample_trajectory(model.loaded, ['0:2', '2:1'], num_frames=num_frames, batch_size=2)
    assert len(frames) == min(num_frames, steps)
    assert [[len(row) for row in rows] for rows in frames] == [[2, 1]] * len(frames)
    start = expected_images([0, 3], [0, 0], steps=0)
    assert steps == 1 or (frames[0][0] == start + 1).all()
    for row, pictures in zip(frames[-1], sample_classes(model.loaded, ['0:2', '2:1']), strict=True):
        np.testing.assert_array_equal(row, pictures)
    passed = [int(rows[0][0, 0, 0, 0]) - int(start[0, 0, 0, 0]) for rows in frames]
    assert passed == list(range(1, 8)) if steps == 7 else max(np.diff(passed), default=0) <= 20


@pytest.mark.parametrize('num', [1, 5, 29])
def test_states_are_kept_at_even_distances(num):
    keeper = StateKeeper(num)
    for step in range(1000):
        keeper(step, torch.tensor([step]))
        assert len(keeper.states) <= 2 * num
    chosen = [int(state) for state in keeper.chosen()]
    assert len(chosen) == num and chosen[0] == 0
    assert num == 1 or (min(np.diff(chosen)) > 0 and max(np.diff(chosen)) <= 2 * min(np.diff(chosen)) and chosen[-1] > 800)


def test_file_has_the_form_of_adms_evaluator_and_says_what_it_is(model, tmp_path):
    out = tmp_path / 'samples.npz'
    facts = write_samples(model.loaded, out, NUM, seed=4, batch_size=7, sample_model='model')
    with np.load(out, allow_pickle=False) as samples:
        assert samples.files == ['arr_0', 'arr_1']
        images, labels = samples['arr_0'], samples['arr_1']
    assert images.dtype == np.uint8 and images.shape == (NUM, SIDE, SIDE, 3) and labels.dtype == np.int64
    assert np.bincount(labels, minlength=3).min() > 20
    np.testing.assert_array_equal(images, expected_images(np.arange(NUM), labels, seed=4))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ['iter_1.pth', 'samples.npz', 'samples.npz.json', 'samples.npz.lock']
    assert json.loads((tmp_path / 'samples.npz.json').read_text()) == facts
    assert facts['label_mode'] == 'random' and facts['seed'] == 4 and facts['num_samples'] == NUM
    assert facts['sampler'] == dict(name='FakeSampler', num_steps=5) and facts['sample_model'] == 'model'
    assert facts['denoiser'] == dict(type='Fake', arch=dict(depth=2))
    assert facts['checkpoint_sha256'] == hashlib.sha256(b'weights').hexdigest()[:16] and facts['vae']['scale'] == [1.0] * 3
    assert facts['versions']['torch'] == torch.__version__ and facts['device'].startswith('cpu')


@pytest.mark.parametrize('batch_size', [1, 3, NUM])
def test_bytes_do_not_depend_on_the_batch_size(model, reference, tmp_path, batch_size):
    write_samples(model.loaded, tmp_path / 'samples.npz', NUM, batch_size=batch_size)
    assert (tmp_path / 'samples.npz').read_bytes() == reference
    assert sorted(model.drawn) == list(range(NUM))
    assert set(model.batches[:-1]) <= {batch_size}


def test_batches_are_fixed_for_a_sampler_that_looks_at_the_whole_batch(model, reference, tmp_path):
    model.sampler.batch_invariant = False
    write_samples(model.loaded, tmp_path / 'samples.npz', NUM, batch_size=10)
    assert (tmp_path / 'samples.npz').read_bytes() == reference
    assert model.batches == [2] * (NUM // 2) + [1]
    sample_classes(model.loaded, [0, 1], per_class=2)
    assert model.batches[-5:] == [1] * 5


def test_continues_without_repeating_or_skipping(model, reference, tmp_path):
    out = tmp_path / 'samples.npz'
    for stop_after, batch_size in ((20, 7), (50, 4)):
        model.stop_after = stop_after
        with pytest.raises(KeyboardInterrupt):
            write_samples(model.loaded, out, NUM, batch_size=batch_size)
    assert not out.exists()
    kept = 2 * len(list((tmp_path / 'samples.npz.parts').glob('part-*.npy')))
    before = len(model.drawn)
    assert before >= 50 and before - kept <= 2, 'only a block that was not full is lost'
    model.stop_after = None
    write_samples(model.loaded, out, NUM, batch_size=50)
    assert out.read_bytes() == reference
    assert sorted(model.drawn[before:]) == list(range(kept, NUM))


@pytest.mark.parametrize(('num', 'size', 'blocks'), [(1, 1, 1), (255, 1, 255), (1000, 3, 334), (50_000, 64, 782)])
def test_blocks(tmp_path, monkeypatch, num, size, blocks):
    monkeypatch.setattr('usp_mm.sampling.parts._FEWEST_BLOCKS', 256)
    parts = SampleParts(tmp_path, num, SIDE)
    assert len(parts.blocks) == blocks and {len(block) for block in parts.blocks[:-1]} <= {size}
    assert [i for block in parts.blocks for i in block] == list(range(num))


def test_a_damaged_part_is_drawn_again(model, reference, tmp_path):
    out = tmp_path / 'samples.npz'
    model.stop_after = 50
    with pytest.raises(KeyboardInterrupt):
        write_samples(model.loaded, out, NUM, batch_size=10)
    damaged = tmp_path / 'samples.npz.parts' / 'part-000003.npy'
    damaged.write_bytes(damaged.read_bytes()[:-1])
    model.stop_after, model.drawn = None, []
    write_samples(model.loaded, out, NUM)
    assert out.read_bytes() == reference
    assert model.drawn[:3] == [6, 7, 50] and len(model.drawn) == 2 + NUM - 50


def test_complete_already(model, tmp_path):
    out = tmp_path / 'samples.npz'
    facts = write_samples(model.loaded, out, 10)
    (tmp_path / 'samples.npz.parts').mkdir()
    before, drawn = out.stat().st_mtime_ns, len(model.drawn)
    assert write_samples(model.loaded, out, 10) == facts
    assert out.stat().st_mtime_ns == before and len(model.drawn) == drawn
    assert not (tmp_path / 'samples.npz.parts').exists() and (tmp_path / 'samples.npz.lock').read_bytes() == b''


def test_other_settings_are_refused(model, tmp_path):
    out = tmp_path / 'samples.npz'
    model.stop_after = 20
    with pytest.raises(KeyboardInterrupt):
        write_samples(model.loaded, out, NUM, batch_size=10)
    begun = rf"'{re.escape(str(out))}' was begun with other settings \({{}}\): .*delete '{re.escape(str(out))}\.parts'"
    with pytest.raises(ValueError, match=begun.format('seed: 0 there, 1 now; labels_sha256: .*')):
        write_samples(model.loaded, out, NUM, seed=1)
    with pytest.raises(ValueError, match=begun.format("sample_model: 'ema' there, 'model' now")):
        write_samples(model.loaded, out, NUM, sample_model='model')
    model.steps = 6
    with pytest.raises(ValueError, match=begun.format(r'sampler\.num_steps: 5 there, 6 now')):
        write_samples(model.loaded, out, NUM)
    model.steps, model.stop_after = 5, None
    write_samples(model.loaded, out, NUM)
    (tmp_path / 'iter_1.pth').write_bytes(b'other weights')
    with pytest.raises(ValueError, match=r"' exists and was made with other settings \(checkpoint_sha256: '\w{16}' there, "):
        write_samples(model.loaded, out, NUM)
    (tmp_path / 'samples.npz.json').unlink()
    with pytest.raises(ValueError, match=r"' exists, and no 'samples\.npz\.json' says of what"):
        write_samples(model.loaded, out, NUM)


def test_a_generator_of_unknown_origin_is_described_by_its_weights(reference, tmp_path):
    """As one that has just been trained: same bytes, no checkpoint; continued, but never with other weights."""
    model, out = FakeGenerator(None), tmp_path / 'samples.npz'
    assert [row.shape[0] for row in sample_classes(model, [0, '2:3'], 2)] == [2, 3]
    with pytest.raises(ValueError, match="class 'dog': neither config nor checkpoint names the classes"):
        sample_classes(model, ['dog'])
    model.stop_after = len(model.drawn) + 20
    with pytest.raises(KeyboardInterrupt):
        write_samples(model, out, NUM, batch_size=10)
    model.stop_after = None
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(ValueError, match=r"was begun with other settings \(weights_sha256: '\w{16}' there, '\w{16}' now\)"):
        write_samples(model, out, NUM)
    with torch.no_grad():
        model.weight -= 1
    facts = write_samples(model, out, NUM)
    assert out.read_bytes() == reference
    assert facts == json.loads((tmp_path / 'samples.npz.json').read_text()) and len(facts['weights_sha256']) == 16
    unknown = ('config', 'checkpoint', 'checkpoint_sha256', 'denoiser')
    assert [facts[key] for key in unknown] == [None] * 4 and facts['vae']['name'] == 'fake'


def test_a_checkpoint_is_forgotten_once_training_has_changed_the_weights(model, tmp_path):
    out = tmp_path / 'samples.npz'
    assert write_samples(model.loaded, out, 10)['checkpoint'] == str(tmp_path / 'iter_1.pth')
    model.to(torch.float64)
    assert model.loaded.weights == tmp_path / 'iter_1.pth'
    with torch.no_grad():
        model.weight += 1
    with pytest.raises(ValueError, match=r"checkpoint_sha256: '\w{16}' there, None now; weights_sha256: None there"):
        write_samples(model.loaded, out, 10)
    facts = write_samples(model.loaded, tmp_path / 'other.npz', 10)
    assert facts['checkpoint'] is None and facts['denoiser'] == dict(type='Fake', arch=dict(depth=2))
    assert model.loaded.classes == ('cat', 'dog', 'fish')


def test_a_second_writer_is_refused(model, tmp_path):
    out = tmp_path / 'samples.npz'
    with held_elsewhere(tmp_path / 'samples.npz.lock'):
        with pytest.raises(ValueError, match=rf"another process is writing '{out}': wait for it or stop it \(process \d+ on "):
            write_samples(model.loaded, out, 10)
        assert not model.drawn
    write_samples(model.loaded, out, 10)
    assert out.is_file()


def test_full_disk(model, reference, tmp_path, monkeypatch):
    out = tmp_path / 'samples.npz'
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr('shutil.disk_usage', lambda path: usage._replace(free=1000))
        with pytest.raises(OSError, match=r'too little disk space: needs [\d,]+ more bytes, 1,000 are free'):
            write_samples(model.loaded, out, NUM)
    assert not model.drawn and not (tmp_path / 'samples.npz.parts').exists()
    parts = SampleParts(tmp_path / 'samples.npz.parts', NUM, SIDE)
    parts.folder.mkdir()
    needed = parts.missing_bytes() - 3 * parts.num_bytes(0)
    with monkeypatch.context() as patch:
        fill_disk_at(patch, 'part-000003.npy')
        with pytest.raises(OSError, match=rf'the disk is full: needs {needed:,} more bytes') as caught:
            write_samples(model.loaded, out, NUM, batch_size=2)
    assert caught.value.errno == errno.ENOSPC
    write_samples(model.loaded, out, NUM)
    assert out.read_bytes() == reference
    # blocks 0 to 2 are kept; that of 6 and 7 is drawn again, and what was drawn before its failure was noticed
    times = Counter(model.drawn)
    again = sorted(i for i in times if times[i] == 2)
    assert again == list(range(6, 6 + len(again))) and 2 <= len(again) <= 10 and set(times.values()) == {1, 2}


def test_the_bar_shows_steps(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(ShownSteps, 'interval', 0.0)
    write_samples(model.loaded, tmp_path / 'samples.npz', 4)
    assert 'step 1 of 5' in (shown := capsys.readouterr().err) and 'step 5 of 5' in shown
    assert 'step' not in shown.rstrip().split('\r')[-1]
    sample_classes(model.loaded, [0, 1], per_class=1)
    assert 'step 3 of 5' in capsys.readouterr().err
    sample_trajectory(model.loaded, [0], 1, num_frames=2)
    assert 'step 3 of 5' in capsys.readouterr().err
    model.sampler.num_updates = None  # one that chooses its steps
    assert sample_classes(model.loaded, [0])[0].shape[0] == 4 and 'step' not in capsys.readouterr().err


def test_mistakes(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"folder '.*nowhere' does not exist, create it first"):
        write_samples(model.loaded, tmp_path / 'nowhere' / 'samples.npz', 10)
    with pytest.raises(ValueError, match='batch_size=0 must be at least 1'):
        write_samples(model.loaded, tmp_path / 'samples.npz', 10, batch_size=0)
    model.broken = 4
    with pytest.raises(ValueError, match=r'sample 4 \(class \d\) became NaN or infinite: check that the training'):
        write_samples(model.loaded, tmp_path / 'samples.npz', 10, batch_size=3)
    with pytest.raises(ValueError, match='num_frames=1 must be 2 or more'):
        sample_trajectory(model.loaded, [0], num_frames=1)
    with pytest.raises(ValueError, match=r"unknown class 'doog'.*did you mean 'dog'"):
        sample_classes(model.loaded, ['doog'])
