"""tools/cache_latents.py as a user runs it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_codec import truncate_jpeg

from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.vaes import build_codec

ROOT = Path(__file__).parents[2]
TOOL = [sys.executable, 'tools/cache_latents.py']
OPTIONS = ['--img-size', '128', '--shard-size', '2', '--encode-batch-size', '2', '--batch-size', '2', '--workers', '0']


#: On a CPU the number of threads is a part of how convolutions round; torchrun sets 1 too.
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope='module')
def images(demo_data: Path) -> Path:
    return demo_data / 'imagenet' / 'train'


@pytest.fixture(scope='module')
def reference(images: Path, tiny_vae_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an uninterrupted single process writes."""
    out = tmp_path_factory.mktemp('reference')
    codec = build_codec('tiny', path=tiny_vae_folder)
    write_cache(str(images), out, codec, CacheSpec(128, shard_size=2, encode_batch_size=2), 2, 0)
    return contents(out)


def write_command(images: Path, out: Path, vae: Path) -> list[str]:
    return [*TOOL, 'write', str(images), str(out), '--vae', 'tiny', '--vae-path', str(vae), *OPTIONS]


@pytest.mark.slow
def test_names_beyond_ascii_under_the_locale_c(images: Path, tiny_vae_folder: Path, tmp_path: Path) -> None:
    """A cache of class folders with such names is the one of any locale."""
    shutil.copytree(images / '0', tmp_path / 'bilder' / 'größe')
    shutil.copytree(images / '1', tmp_path / 'bilder' / '猫')
    found = {}
    for locale in ('C', 'C.UTF-8'):
        command = write_command(tmp_path / 'bilder', tmp_path / locale, tiny_vae_folder)
        done = subprocess.run(command, cwd=ROOT, env={**ENV, 'LC_ALL': locale}, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        found[locale] = contents(tmp_path / locale)
    assert found['C'] == found['C.UTF-8']
    assert found['C']['samples.txt'].decode().startswith('größe/') and b'\xe7\x8c\xab/' in found['C']['samples.txt']


@pytest.mark.slow
def test_killed_and_continued(images: Path, tiny_vae_folder: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    command = write_command(images, out, tiny_vae_folder)
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (out / 'shard-00002.json').exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / 'manifest.json').exists()
    finished = {path: path.stat().st_mtime_ns for path in out.glob('shard-*') if path.suffix != '.tmp'}
    assert 3 <= len(list(out.glob('shard-*.json'))) < 20
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert f"continuing '{out}': " in again.stdout + again.stderr
    assert contents(out) == reference
    kept = [path for path, changed in finished.items() if path.stat().st_mtime_ns == changed]
    assert len(kept) >= len(finished) - 1, 'at most the shard that had no sidecar yet is redone'
    once_more = run(*command)
    assert once_more.returncode == 0
    assert 'is complete already: nothing to do' in once_more.stdout + once_more.stderr


@pytest.mark.slow
def test_interrupted_and_continued(images: Path, tiny_vae_folder: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    """Ctrl-C leaves whole shards and nothing else."""
    out = tmp_path / 'out'
    command = write_command(images, out, tiny_vae_folder)
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (out / 'shard-00002.json').exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and told.splitlines()[-1] == 'interrupted' and 'Traceback' not in told
    assert not list(out.glob('.*.tmp')) and (out / '.lock').read_bytes() == b'' and not (out / 'manifest.json').exists()
    assert 3 <= len(list(out.glob('shard-*.json'))) == len(list(out.glob('shard-*.npy'))) < 20
    assert run(*command).returncode == 0
    assert contents(out) == reference


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(
    images: Path, tiny_vae_folder: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    done = run(*launcher, *write_command(images, tmp_path / 'out', tiny_vae_folder)[1:], '--batch-size', '3')
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / 'out') == reference


@pytest.mark.slow
def test_verify_repair_info(images: Path, tiny_vae_folder: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / 'out'
    out.mkdir()
    for name, content in reference.items():
        (out / name).write_bytes(content)
    info = run(*TOOL, 'info', out)
    assert info.returncode == 0, info.stderr
    size = str(
        sum(len(content) for name, content in reference.items() if name.startswith('shard') and name.endswith('npy')) / 40
    )
    for words in (('vae', 'tiny'), ('num_samples', '40'), ('bytes_per_image', size), ('image_size', '128')):
        assert any(all(word in line for word in words) for line in info.stdout.splitlines()), words
    damaged = bytearray(reference['shard-00007.npy'])
    damaged[200] ^= 4
    (out / 'shard-00007.npy').write_bytes(damaged)
    verify = run(*TOOL, 'verify', out, '--delete-bad')
    assert verify.returncode == 1
    assert 'BAD shard-00007.npy: SHA-256' in verify.stdout
    assert verify.stdout.count('BAD') == 1
    assert run(*write_command(images, out, tiny_vae_folder)).returncode == 0
    assert contents(out) == reference
    verify = run(*TOOL, 'verify', out)
    assert verify.returncode == 0
    assert 'every file matches its checksum' in verify.stdout


def test_a_mistake_is_one_line(images: Path, tiny_vae_folder: Path, tmp_path: Path) -> None:
    root = tmp_path / 'images' / 'a'
    root.mkdir(parents=True)
    path = truncate_jpeg(root / 'half.jpg')
    done = run(*write_command(root.parent, tmp_path / 'out', tiny_vae_folder))
    assert done.returncode == 1
    assert f"error: cannot decode image '{path}'" in done.stderr
    assert 'Traceback' not in done.stderr
