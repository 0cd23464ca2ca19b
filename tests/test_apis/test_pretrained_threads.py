"""Several threads use one model at once: each gets the numbers that it would get alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers.trained_files import load, pixels


@pytest.fixture
def latents():
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def at_once(network, tasks):
    """Results of calls that each run the patch embedding once, where they wait until all of them are there."""
    meeting = threading.Barrier(len(tasks))

    def meet(*_):
        meeting.wait(60)

    handle = network.patch_embed.register_forward_hook(meet)
    try:
        with ThreadPoolExecutor(len(tasks)) as threads:
            return [future.result() for future in [threads.submit(task) for task in tasks]]
    finally:
        handle.remove()


def test_encoders(files, latents):
    enc = load(files['pretraining'])
    tasks = [
        lambda: enc.encode(latents, layer=1).numpy(),
        lambda: enc.encode(latents, layer=2).numpy(),
        lambda: enc.encode(latents, layer=[2, 1], pool='cls')[1].numpy(),
        lambda: enc.encode(latents, pool=None).numpy(),
        lambda: enc.attention(latents, layer=1),
        lambda: enc.attention(latents, query='patches'),
        lambda: np.asarray(enc.restore(latents, seed=1).picture),
        lambda: np.asarray(enc.restore(latents, mask_ratio=0.5).mask),
    ]
    alone = [task() for task in tasks]
    assert not np.array_equal(alone[0], alone[1])
    for found, expected in zip(at_once(enc.network, tasks), alone, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert np.array_equal(tasks[1](), alone[1])


def test_classifiers(files, latents):
    enc = load(files['classifier'])
    tasks = [lambda: enc.classify(latents), lambda: enc.encode(latents, layer=1).tolist(), lambda: enc.classify(-latents)]
    alone = [task() for task in tasks]
    assert alone[0] != alone[2]
    assert at_once(enc.network, tasks) == alone


def test_generators(files):
    """The second call comes while the first draws its first picture, and would end after it."""
    gen = load(files['generator'])

    def first():
        return pixels(gen.sample([3, 5], guidance=4, steps=3, batch_size=1))

    def second():
        return pixels(gen.sample([3], guidance=1, steps=2))

    alone = [first(), second(), pixels(gen.sample([7], steps=2))]
    entered, ended, calls = threading.Event(), threading.Event(), []
    with ThreadPoolExecutor(1) as thread:

        def meet(*_):
            calls.append(threading.get_ident())
            if len(calls) == 1:
                calls.append(thread.submit(second))
                entered.wait(1)
            elif calls[0] != threading.get_ident() and not entered.is_set():
                entered.set()
                ended.wait(1)

        handle = gen.model.network().register_forward_hook(meet)
        found = first()
        ended.set()
        other = calls[1].result(60)
        handle.remove()
    assert np.array_equal(found, alone[0]) and np.array_equal(other, alone[1])
    assert np.array_equal(pixels(gen.sample([7], steps=2)), alone[2])
