"""The card and what it reaches."""

import platform
import shutil
import subprocess
from importlib.metadata import version

from benchmark_lib import matmul_rate

from .report import Report
from .scale import Scale
from .timing import copy_rate

MATMUL = 'bf16 matmul, TFLOP/s'
_QUERY = 'name,driver_version,memory.total,power.limit,clocks.max.sm'


def run(report: Report, scale: Scale) -> None:
    """Versions, driver, and the rates of a large matrix product and of a copy."""
    packages = ('torch', 'numpy', 'timm', 'mmengine', 'mmpretrain', 'diffusers')
    report.fact('versions', ', '.join(f'{name} {version(name)}' for name in packages) + f', Python {platform.python_version()}')
    if tool := shutil.which('nvidia-smi'):
        done = subprocess.run(
            [tool, f'--query-gpu={_QUERY}', '--format=csv,noheader'], capture_output=True, text=True, timeout=20
        )
        report.fact(f'card ({_QUERY})', (done.stdout if done.returncode == 0 else done.stderr).strip())
    report.fact(MATMUL, round(matmul_rate(), 3))
    report.fact('copy, TB/s', round(copy_rate(scale), 3))
    report.row('matrix product and copy')
