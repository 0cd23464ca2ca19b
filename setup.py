"""What pyproject.toml cannot say: the wheel also carries what OpenMIM looks for."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Of tools/, what calls dev/ or makes an environment of the checkout.
NEEDS_CHECKOUT = ('benchmark.py', 'make_model_zoo.py', 'quickstart.py', 'quickstart.sh', 'env.sh', 'test.sh', 'docs.sh')


class BuildWithMim(build_py):
    """Also ship configs, tools and the model index, as `usp_mm/.mim`: where OpenMIM looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        mim = Path(self.build_lib, 'usp_mm', '.mim')
        ignore = shutil.ignore_patterns('__pycache__', *NEEDS_CHECKOUT)
        for folder in ('configs', 'tools'):
            shutil.copytree(ROOT / folder, mim / folder, dirs_exist_ok=True, ignore=ignore)
        shutil.copy2(ROOT / 'model-index.yml', mim)


setup(cmdclass={'build_py': BuildWithMim}, zip_safe=False)
