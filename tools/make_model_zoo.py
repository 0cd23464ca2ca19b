"""`dev/make_model_zoo.py`, under its older address."""

import runpy
import sys
from pathlib import Path

DEV = Path(__file__).resolve().parent.parent / 'dev'

if __name__ == '__main__':
    sys.path.insert(0, str(DEV))
    runpy.run_path(str(DEV / 'make_model_zoo.py'), run_name='__main__')
