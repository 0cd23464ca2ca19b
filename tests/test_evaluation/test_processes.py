"""Exactly N samples, whatever the number of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import golden
from numbered import write_reference

HERE = Path(__file__).parent
ENV = {**os.environ, 'PYTHONPATH': f'{HERE.parents[1]}:{HERE.parent}:{HERE}', 'OMP_NUM_THREADS': '1'}


@pytest.mark.slow
def test_scores_do_not_depend_on_the_number_of_processes(tmp_path):
    write_reference(tmp_path / 'ref.npz')
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    script = str(HERE / 'score_share.py')
    done = subprocess.run([*launcher, script, str(tmp_path)], env=ENV, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f'{rank}-of-2.json').read_text()) for rank in (0, 1))
    official = golden.load('metrics')
    expected = dict(FD=official['fid'], precision=official['precision_k3'], recall=official['recall_k3'])
    for name, value in expected.items():
        assert first['scores'][f'Feature/{name}'] == pytest.approx(float(value), rel=1e-6)
    assert first['scores'] == second['scores']
    assert first['alone'] == pytest.approx(first['scores'], rel=1e-9)  # every sample on the first process
    for result in (first, second):
        assert result['error'] == (
            'Feature metrics: got 13 distinct samples, expected 600: every number (sample_idx) from the data set must '
            'arrive once, on some process'
        )
    assert (first['reported'], second['reported']) == (True, False)
    # there is a file in the place of each folder, which only the first process notices
    assert first['failures'] == dict(cache_dir='NotADirectoryError', out_dir='FileExistsError')
    assert second['failures'] == dict(cache_dir='NotADirectoryError', out_dir='SystemExit')
    assert first['reference_images'] + second['reference_images'] == 600 and second['reference_images'] > 250
