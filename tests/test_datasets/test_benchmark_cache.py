"""tools/benchmark.py cache as a user runs it."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_cache_takes_at_most_half_the_bytes(tmp_path: Path) -> None:
    """Speeds are not asserted: they are the machine's."""
    command = [sys.executable, 'tools/benchmark.py', 'cache', '--num-samples', '512', '--epochs', '1', '--folder', tmp_path]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [*map(str, command), '--json', str(tmp_path / 'result.json')],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / 'result.json').read_text())
    assert set(result) == {'hardware', 'arguments', 'rows', 'data'}
    assert set(result['hardware']) == {'cpu', 'cores', 'bfloat16', 'gpu', 'torch'}
    rows = {row['format']: row for row in result['rows']}
    assert list(rows) == ['npz', 'cache, float16', 'cache, float16-full', 'cache, bfloat16', 'cache, float32']
    for size in ('bytes/image', 'allocated bytes/image'):
        assert rows['cache, float16'][size] <= rows['npz'][size] / 2
    view = 4 * 28 * 28
    assert 2 * 3 * view <= rows['cache, float16']['bytes/image'] <= 2 * 3 * view + 200
    assert all(row['load images/s'] > 0 for row in rows.values())
    assert 'benchmark cache: cpu' in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ['result.json'], 'what was measured is deleted'


def test_stages_of_writing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / 'dev'))
    options = ['--num-samples', 9, '--batch-size', 4, '--img-size', 32, '--workers', 1, '--folder', tmp_path]
    words = ['tools/benchmark.py', 'cache', '--encode', 'tiny', *options, '--json', tmp_path / 'result.json']
    monkeypatch.setattr('sys.argv', [str(word) for word in words])
    with pytest.raises(SystemExit, match=r'^0$'):
        runpy.run_path(str(ROOT / words[0]), run_name='__main__')
    result = json.loads((tmp_path / 'result.json').read_text())
    assert [row['stage'] for row in result['rows']] == ['decode', 'encode', 'write']
    assert result['same bytes'] is True
    for row in result['rows']:
        assert row['alone, views/s'] > 0
        assert all(int(row[f'busy in {how}'].rstrip(' %')) >= 0 for how in ('turn', 'the pipeline'))
    waits = result['share of the time that the encoder waits']
    assert all(0 <= waits[how] < 1 and result['views/s'][how] > 0 for how in ('in_turn', 'pipeline'))
    assert [path.name for path in tmp_path.iterdir()] == ['result.json'], 'what was measured is deleted'
