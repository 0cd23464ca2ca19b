"""The demo of models that need neither mmsegmentation nor mmagic, where these are not installed."""

import pytest
from helpers.python_scripts import run_script


@pytest.mark.slow
def test_the_demo_opens_without_mmsegmentation_and_mmagic(checkpoints):
    out = run_script(f"""
        import sys

        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in ('mmagic', 'mmseg'):
                    raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

        sys.meta_path.insert(0, Hidden())
        import usp_mm
        from usp_mm.app.build import build_app
        from usp_mm.app.models import load_models

        models = load_models({list(checkpoints.values())!r}, 'cpu')
        build_app(models).close(verbose=False)
        print([len(group) for group in models])
        print(usp_mm.from_pretrained({checkpoints['classifier']!r}, device='cpu').img_size)
    """)
    assert out.splitlines()[-2:] == ['[1, 1, 2, 2, 0]', '64']
