"""Patches that mmagic and mmseg need to be imported: active where upstream is broken, inactive where it works."""

import sys

import numpy as np
import pytest
from helpers.python_scripts import run_script

from usp_mm.compat import mmagic
from usp_mm.renaming.placeholders import placeholder


@pytest.mark.parametrize(
    ('module', 'used', 'absent'),
    [
        ('apis.inferencers.controlnet_animation_inferencer', 'ControlnetAnimationInferencer', ['controlnet-aux']),
        ('datasets.transforms.albu_function', 'AlbuCorruptFunction', ['albumentations']),
        ('evaluation.metrics.ppl', 'PerceptualPathLength', ['lpips']),
        ('models.editors.animatediff.animatediff_utils', 'save_videos_grid', ['transformers']),
        ('models.editors.disco_diffusion.guider', 'ImageTextGuider', ['lpips', 'pandas', 'resize-right']),
        ('models.editors.fastcomposer.fastcomposer', 'FastComposer', ['transformers']),
    ],
)
def test_modules_of_mmagic_without_their_packages_name_the_fix(module, used, absent, monkeypatch):
    monkeypatch.setitem(sys.modules, f'mmagic.{module}', None)
    monkeypatch.setattr(mmagic, 'MMAGIC_OPTIONAL', {module: mmagic.MMAGIC_OPTIONAL[module]})
    monkeypatch.setattr(mmagic.importlib.util, 'find_spec', lambda package: None)
    mmagic.mmagic_optional_packages()
    verb = 'is' if len(absent) == 1 else 'are'
    with pytest.raises(ImportError, match=f'^{used}: {" and ".join(absent)} {verb} not .*`pip install {" ".join(absent)}`$'):
        getattr(sys.modules[f'mmagic.{module}'], used)(keys=['img'])


def test_without_one_of_several_packages_that_one_is_named(monkeypatch):
    guider = 'models.editors.disco_diffusion.guider'
    monkeypatch.setitem(sys.modules, f'mmagic.{guider}', None)
    monkeypatch.setattr(mmagic, 'MMAGIC_OPTIONAL', {guider: ('lpips', 'pandas', 'resize-right')})
    monkeypatch.setattr(mmagic.importlib.util, 'find_spec', lambda package: None if package == 'resize_right' else 'found')
    mmagic.mmagic_optional_packages()
    with pytest.raises(ImportError, match=r'^ImageTextGuider: resize-right is not installed: `pip install resize-right`$'):
        sys.modules[f'mmagic.{guider}'].ImageTextGuider()


def test_mmagic_imports_without_any_of_them_and_nobody_else_sees_a_stand_in():
    out = run_script("""
        import sys
        import usp_mm
        from usp_mm.compat.mmagic import MMAGIC_OPTIONAL, mmagic_optional_packages

        class Absent:
            def find_spec(self, name, path=None, target=None):
                if name.split('.')[0] in names:
                    raise ModuleNotFoundError(f'No module named {name!r}', name=name)

        names = {package.replace('-', '_') for packages in MMAGIC_OPTIONAL.values() for package in packages}
        names |= {'av', 'face_alignment', 'facexlib', 'lmdb', 'mediapipe', 'numba'}
        sys.meta_path.insert(0, Absent())
        from unittest.mock import patch
        import importlib.util
        found = importlib.util.find_spec
        for module in MMAGIC_OPTIONAL:
            sys.modules.pop(f'mmagic.{module}', None)
        with patch('importlib.util.find_spec', lambda name, *args: None if name in names else found(name, *args)):
            mmagic_optional_packages()
            import mmagic.apis, mmagic.datasets, mmagic.engine, mmagic.evaluation, mmagic.models, mmagic.visualization
        import mmpretrain.models, mmpretrain.datasets, mmpretrain.apis, mmseg.models, mmseg.datasets, mmseg.apis
        assert not names & {name.split('.')[0] for name in sys.modules}
        from mmagic.registry import MODELS
        assert MODELS.get('FastComposer') is None
        for used in (mmagic.models.DiscoDiffusion, mmagic.apis.MMagicInferencer):
            assert isinstance(used, type)
        try:
            mmagic.models.FastComposer()
        except ImportError as e:
            print(e)
        import diffusers
        try:
            diffusers.LDMSuperResolutionPipeline()
        except ImportError as e:
            print(e)
    """)
    fix = 'transformers is not installed: `pip install transformers`'
    assert out.splitlines()[-2:] == [f'FastComposer: {fix}', f'LDMSuperResolutionPipeline: {fix}']


def test_placeholders_have_no_private_attributes_of_their_own():
    placeholder('usp_mm_test_placeholder', lambda name: name)
    module = sys.modules.pop('usp_mm_test_placeholder')
    assert module.public == 'public'
    assert module.__spec__.loader is None
    assert not hasattr(module, '__file__')


def test_modules_that_diffusers_moved_are_found_under_their_older_names(tmp_path):
    for name in ('models/unets/unet_2d_condition.py', 'pipelines/deprecated/paint_by_example.py'):
        file = tmp_path / 'diffusers' / name
        file.parent.mkdir(parents=True)
        file.write_text(f'name = {name!r}')
        for folder in file.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / '__init__.py').touch()
    out = run_script(
        """
        import usp_mm
        from diffusers.models.unet_2d_condition import name
        from diffusers.pipelines.paint_by_example import name as other
        print(name, other)
        try:
            from diffusers.pipelines.paint_by_example import Absent
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    ).splitlines()
    assert out[0] == 'models/unets/unet_2d_condition.py pipelines/deprecated/paint_by_example.py'
    assert out[1].startswith("cannot import name 'Absent'")


def test_numpy_bool8_is_added_only_where_it_is_gone(monkeypatch):
    monkeypatch.setattr(np, 'bool8', 'numpy 1', raising=False)
    mmagic.numpy_bool8()
    assert np.bool8 == 'numpy 1'
    monkeypatch.delattr(np, 'bool8')
    if hasattr(np, 'bool8'):
        pytest.skip('numpy 1 has it')
    mmagic.numpy_bool8()
    assert np.bool8 is np.bool_
