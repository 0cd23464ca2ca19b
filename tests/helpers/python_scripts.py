"""Scripts that run in a Python of their own, with this package importable."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_script(script: str, *paths: Path) -> str:
    """What a script prints; `paths` come first on its PYTHONPATH."""
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*paths, ROOT])), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
