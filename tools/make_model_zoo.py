"""`dev/make_model_zoo.py`, under its older address."""

import runpy
from pathlib import Path

if __name__ == '__main__':
    runpy.run_path(str(Path(__file__).resolve().parent.parent / 'dev' / 'make_model_zoo.py'), run_name='__main__')
