"""Packaging. Requirements and the tested versions are in requirements/, tool settings in pyproject.toml."""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def requirements(name: str) -> list[str]:
    """The lines of `requirements/<name>.txt`, without comments."""
    lines = (line.split('#')[0].strip() for line in (ROOT / 'requirements' / f'{name}.txt').read_text().splitlines())
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Also ship configs, tools and the model index, as `usp_mm/.mim`: where OpenMIM looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib, 'usp_mm', '.mim')
        for folder in ('configs', 'tools'):
            shutil.copytree(ROOT / folder, mim / folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy2(ROOT / 'model-index.yml', mim)


extras = {name: requirements(name) for name in ('seg', 'gen', 'dev')}

setup(
    name='usp-mm',
    version=runpy.run_path(str(ROOT / 'usp_mm' / 'version.py'))['__version__'],
    description='USP: unified self-supervised pretraining for image generation and understanding, on OpenMMLab',
    author='The usp_mm authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    classifiers=['Programming Language :: Python :: 3', 'Operating System :: POSIX :: Linux'],
    python_requires='>=3.10',
    packages=find_packages(include=['usp_mm', 'usp_mm.*']),
    install_requires=requirements('runtime'),
    extras_require={**extras, 'all': sorted({line for lines in extras.values() for line in lines})},
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
