"""The notebooks run from top to bottom, and are stored without outputs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOKS = {'restore': ('restored.png', 3), 'sample': ('samples.png', 6)}


def cells(name):
    return json.loads((ROOT / 'notebooks' / f'{name}.ipynb').read_text())['cells']


def test_they_are_all_here_and_without_outputs():
    assert {path.stem for path in (ROOT / 'notebooks').glob('*.ipynb')} == set(NOTEBOOKS)
    for name in NOTEBOOKS:
        code = [cell for cell in cells(name) if cell['cell_type'] == 'code']
        assert [(cell['outputs'], cell['execution_count']) for cell in code] == [([], None)] * len(code)
        assert len({cell['id'] for cell in cells(name)}) == len(cells(name)) > 4


@pytest.mark.slow
@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path):
    """Its cells as one program in an empty folder, without a network."""
    code = '\n'.join(''.join(cell['source']) for cell in cells(name) if cell['cell_type'] == 'code')
    (tmp_path / 'cells.py').write_text(code)
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'HF_HUB_OFFLINE': '1', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run([sys.executable, 'cells.py'], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    file, num = NOTEBOOKS[name]
    picture = np.asarray(Image.open(tmp_path / file))
    assert picture.shape == (64, 64 * num, 3) and picture.std() > 5
