"""dev/soak.py finds what grows, and only that."""

import math
import subprocess
import sys

import pytest
from helpers.python_scripts import run_script
from helpers.small_world import ROOT

from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    monkeypatch.delitem(sys.modules, 'soak', raising=False)
    import soak

    yield soak
    sys.modules.pop('soak', None)


@pytest.fixture(scope='module')
def digits_cache(demo_data, tiny_vae_folder, tmp_path_factory):
    """Cached latents of 40 digits."""
    folder = tmp_path_factory.mktemp('digits') / 'cache'
    write_cache(
        str(demo_data / 'imagenet/train'),
        folder,
        build_codec('tiny', path=str(tiny_vae_folder)),
        CacheSpec(64, flip=False),
        num_workers=0,
    )
    return folder


def rows(values):
    return [dict(iteration=10 * i, memory=value) for i, value in enumerate(values)]


def test_a_slope_with_its_error(soak):
    noise = [1024 * 100 * math.sin(7 * i) for i in range(200)]
    still = soak.growth(rows(noise), 'memory')
    assert still['flat'] and abs(still['slope']) < 3 * still['error'] and still['unit'] == 'KiB'
    grows = soak.growth(rows([1024 * 10 * i + x for i, x in enumerate(noise)]), 'memory')
    assert not grows['flat'] and grows['slope'] == pytest.approx(1000, rel=0.05)  # KiB in 1,000 iterations
    assert soak.growth(rows([5] * 60), 'memory')['flat']
    kept = [dict(iteration=10 * i, blocks=10 * i) for i in range(60)]  # one object an iteration
    assert (
        not soak.growth(kept, 'blocks')['flat']
        and soak.growth([{**row, 'blocks': row['blocks'] / 3} for row in kept], 'blocks')['flat']
    )
    assert soak.growth(rows([5 - i for i in range(60)]), 'memory')['flat']  # what shrinks is no leak
    filled = rows([1024 * min(i, 50) for i in range(100)])  # grows until it is full
    assert not soak.growth(filled, 'memory')['flat'] and soak.growth(filled, 'memory', warm_up=0.5)['slope'] == pytest.approx(
        0, abs=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize(('stage', 'leak'), [('pretraining', 12 << 20), ('sit', 0)])
def test_sixty_iterations_and_a_leak(soak, stage, leak, tmp_path, demo_data, tiny_vae_folder, digits_cache):
    """One leaks, and the other not, as it would fill the memory that the first one freed."""
    (tmp_path / 'vae').symlink_to(tiny_vae_folder)
    (tmp_path / 'data').symlink_to(demo_data)
    (tmp_path / 'cache').symlink_to(digits_cache)
    found = soak.soak(stage, tmp_path, 60, leak=leak, events=3)
    assert found.keys() == {'iterations', 'seconds', 'rows', *soak.UNITS} and found['iterations'] == 60
    assert all(found[key].keys() == {'unit', 'mean', 'slope', 'error', 'flat'} for key in soak.UNITS)
    assert found['open_files']['flat'] and found['threads']['flat']
    assert sorted(path.name for path in (tmp_path / stage).glob('*.pth')) == ['iter_40.pth', 'iter_60.pth']
    if leak:
        assert not found['allocated']['flat'] and found['allocated']['slope'] * 1024 / leak / 1000 == pytest.approx(1, abs=0.1)
        assert not found['memory']['flat'] and found['memory']['slope'] * 1024 / leak / 1000 == pytest.approx(1, abs=0.5)


@pytest.mark.slow
def test_a_small_cache_is_written_verified_and_read(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    import soak_serving

    monkeypatch.setattr(soak_serving, 'DISTINCT', 8)
    assert soak_serving.cache(tmp_path, 20, workers=1).keys() == {'write', 'verify', 'first batch', 'read'}
    assert len(list((tmp_path / 'many').rglob('*.png'))) == 20
    sys.modules.pop('soak_serving', None)


@pytest.mark.slow
def test_twenty_requests_to_the_demo(tmp_path, tiny_vae_folder, monkeypatch):
    pytest.importorskip('gradio')
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    import soak_serving

    (tmp_path / 'vae').symlink_to(tiny_vae_folder)
    found = soak_serving.serve(tmp_path, 20, every=10)
    assert [row['iteration'] for row in found] == [10, 20]
    assert found[0].keys() == {'iteration', 'allocated', 'blocks', 'memory', 'open_files', 'threads', 'cpu', 'wall'}
    assert (tmp_path / 'app.log').read_text().endswith('\nended\n')
    sys.modules.pop('soak_serving', None)


def test_what_a_served_process_has_allocated(tmp_path):
    """A tool that keeps 100 KB and gets its own arguments; tracing begins empty."""
    tool = tmp_path / 'tool.py'
    tool.write_text('import sys, time\nkept = bytearray(100_000)\nprint(sys.argv[1:], flush=True)\ntime.sleep(60)\n')
    command = [sys.executable, ROOT / 'dev/soak_memory.py', tmp_path / 'socket', tool, 'a', 'b']
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "['a', 'b']\n"
            found = run_script(ASK.format(socket=str(tmp_path / 'socket')), ROOT / 'dev')
        finally:
            process.kill()
    assert found == 'True True {}\n'


ASK = """
from pathlib import Path
from soak_memory import ask

found = ask(Path({socket!r}))
print(found['allocated'] > 100_000, found['blocks'] > 1000, ask(Path({socket!r}), 'growth'))
"""
