"""`--fast` of tools/evaluate.py: other bits, the same scores; and images that are read ahead."""

import sys
import threading

import numpy as np
import pytest
import torch
from numbered import images

from usp_mm.cli.evaluate import build_metric, parse_args
from usp_mm.evaluation import ADMMetrics, features_of
from usp_mm.evaluation.images import NpzImages
from usp_mm.functional.metrics import inception_score, precision_recall


def pictures(num, detail, seed):
    """Smooth colours with fine detail, uint8[N, 64, 64, 3]."""
    generator = torch.Generator().manual_seed(seed)
    colours, noise = (torch.rand(num, 3, side, side, generator=generator) for side in (8, 64))
    smooth = torch.nn.functional.interpolate(colours, size=(64, 64), mode='bicubic')
    mixed = (1 - detail) * smooth + detail * noise
    return (255 * mixed.clamp(0, 1)).to(torch.uint8).permute(0, 2, 3, 1).numpy()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    np.savez(folder / 'ref.npz', pictures(8, 0.2, 0))
    np.savez(folder / 'samples.npz', pictures(8, 0.3, 1))
    return folder


def metric_of(monkeypatch, folder, weights, *words):
    given = ['evaluate.py', folder / 'samples.npz', '--ref', folder / 'ref.npz', '--inception', weights, *words]
    monkeypatch.setattr(sys, 'argv', [*map(str, given)])
    return build_metric(parse_args())


def distance(real, fake):
    """The Fréchet distance of a few rows: the covariances' root has the trace of the nuclear norm of a small matrix."""
    means = [rows.mean(0) for rows in (real, fake)]
    rows = [(rows - mean) / (len(rows) - 1) ** 0.5 for rows, mean in zip((real, fake), means, strict=True)]
    shared = torch.linalg.matrix_norm(rows[0] @ rows[1].T, 'nuc')
    return float((means[0] - means[1]).square().sum() + sum(part.square().sum() for part in rows) - 2 * shared)


def test_fast_scores_are_those_of_the_plain_run(inception_weights, folder, monkeypatch):
    """Float32 throughout: within 1e-4 of each score, its limit; with 40 images, 1e-7 was measured."""
    scores, pools = [], []
    for words in ([], ['--fast']):
        metric = metric_of(monkeypatch, folder, inception_weights, *words)
        real, fake = ({key: value.double() for key, value in features.items()} for features in features_of_both(metric, folder))
        precision, recall = precision_recall(real['pool'].float(), fake['pool'].float(), 3)
        distances = [distance(real[name], fake[name]) for name in ('pool', 'spatial')]
        scores.append([*distances, inception_score(fake['probabilities'].float()), precision, recall])
        pools.append(fake['pool'])
    assert isinstance(metric, ADMMetrics) and scores[1] == pytest.approx(scores[0], rel=1e-4) and min(scores[0]) > 0.01
    assert not torch.equal(*pools), 'other bits'
    weights = [weight for weight in metric.extractor.parameters() if weight.ndim == 4]
    assert len(weights) == 94 and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def features_of_both(metric, folder):
    for name in ('ref', 'samples'):
        ((_, batch),) = NpzImages(folder / f'{name}.npz').batches(metric.batch_size)
        yield features_of(batch, metric.extractor)


@pytest.mark.parametrize(
    ('words', 'gpu', 'expected'),
    [([], True, 64), (['--fast'], False, 64), (['--fast'], True, 256), (['--fast', '--batch-size', 5], True, 5)],
)
def test_images_at_a_time(words, gpu, expected, folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    given = ('evaluate.py', 's.npz', '--ref', folder / 'ref.npz', '--features', 'pixel', *words)
    monkeypatch.setattr(sys, 'argv', [*map(str, given)])
    assert build_metric(parse_args()).batch_size == expected


def test_a_batch_is_read_while_the_one_before_is_in_use(tmp_path, monkeypatch):
    np.savez(tmp_path / 'samples.npz', images(9))
    source, read = NpzImages(tmp_path / 'samples.npz'), []
    third = threading.Event()
    inner = source._batches

    def noted(*args):
        for batch in inner(*args):
            read.append((batch[0], threading.current_thread() is threading.main_thread()))
            if len(read) == 3:
                third.set()
            yield batch

    monkeypatch.setattr(source, '_batches', noted)
    batches = source.batches(3)
    first, second = next(batches), next(batches)
    assert third.wait(10), 'nobody has asked for the third batch'
    assert (first[0], second[0], next(batches)[0]) == ([0, 1, 2], [3, 4, 5], [6, 7, 8])
    assert list(batches) == [] and [there for _, there in read] == [False] * 3
    np.testing.assert_array_equal(torch.cat([first[1], second[1]]).permute(0, 2, 3, 1), images(9)[:6])


def test_an_error_while_reading_ahead_is_the_callers(tmp_path, monkeypatch):
    np.savez(tmp_path / 'samples.npz', images(4))
    source = NpzImages(tmp_path / 'samples.npz')

    def broken(*args):
        raise OSError('the disk is gone')
        yield

    monkeypatch.setattr(source, '_batches', broken)
    with pytest.raises(OSError, match='the disk is gone'):
        next(source.batches(2))
