"""Each patch of usp_mm.compat: active where upstream is broken, inactive where it works."""

import argparse
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer, MMLogger
from mmengine.registry import MODELS, Registry

from usp_mm import compat
from usp_mm.placeholders import placeholder


def run_script(script: str, *paths: Path) -> str:
    env = {**os.environ, 'PYTHONPATH': os.pathsep.join(map(str, [*paths, Path(__file__).parents[1]])), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([sys.executable, '-c', textwrap.dedent(script)], env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_projects_import_and_their_registries_find_our_types():
    out = run_script("""
        import sys
        import usp_mm
        heavy = {'torch', 'numpy', 'torchvision', 'diffusers', 'transformers', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg',
                 'mmagic'}
        assert not heavy & sys.modules.keys()

        import mmseg.models, mmagic.models, mmagic.evaluation, mmpretrain.models
        import mmseg.registry, mmagic.registry, mmpretrain.registry
        from usp_mm.models import USPViT
        for project in (mmpretrain, mmseg, mmagic):
            assert project.registry.MODELS.get('USPViT') is USPViT, project
        import usp_mm.datasets, usp_mm.engine, usp_mm.evaluation, mmengine.registry
        from usp_mm.locations import LOCATIONS
        for kind in LOCATIONS:
            types = getattr(mmengine.registry, kind)._module_dict
            ours = {name for name, found in types.items() if found.__module__.startswith('usp_mm.')}
            assert ours, kind
            for project in (mmpretrain, mmseg, mmagic):
                theirs = getattr(project.registry, kind, None)
                assert theirs is None or not ours & theirs._module_dict.keys(), (kind, project)

        from importlib.machinery import PathFinder
        import mmcv.ops
        from mmengine.utils.dl_utils import mmcv_full_available
        compiled = PathFinder.find_spec('mmcv._ext', mmcv.__path__) is not None
        assert mmcv_full_available() == compiled
        if not compiled:
            import torch
            boxes = torch.tensor([[0., 0., 1., 1.]])
            try:
                mmcv.ops.nms(boxes, torch.ones(1), 0.5)
            except ImportError as e:
                print(e)
        else:
            print('pip install mmcv==2.1.0')

        from diffusers.models.unets import unet_2d_condition
        from mmagic.models.editors.vico import vico_utils
        assert vico_utils.UNet2DConditionOutput is unet_2d_condition.UNet2DConditionOutput
    """)
    assert 'mmcv==2.1.0' in out


def test_modules_that_exist_are_left_alone(tmp_path):
    optional = {f'{name.replace("-", "_")}/core.py' for names in compat.MMAGIC_OPTIONAL.values() for name in names}
    for name in ('mmcv/_ext.py', 'diffusers/models/unet_2d_condition.py', *sorted(optional)):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text('real = True')
        for folder in file.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / '__init__.py').touch()
    run_script(
        """
        import sys
        import usp_mm
        import mmcv._ext, diffusers.models.unet_2d_condition
        assert mmcv._ext.real and diffusers.models.unet_2d_condition.real
        assert len(usp_mm.compat.MMAGIC_OPTIONAL) == 6
        assert not [name for name in sys.modules if name.startswith('mmagic')]
        """,
        tmp_path,
    )


def test_torchvision_without_its_library_imports():
    run_script("""
        import usp_mm, torch

        def load_library(path):
            raise OSError(path)

        torch.ops.load_library = load_library
        import torchvision
        for name in ('nms', 'qnms'):
            assert 'Tensor dets' in str(getattr(torch.ops.torchvision, name).default._schema)
    """)


def test_operators_that_are_there_are_not_declared(monkeypatch):
    import torchvision  # noqa: F401

    declared = []
    monkeypatch.setattr(torch.library, 'define', lambda *args: declared.append(args))
    compat.torchvision_schemas()
    assert declared == []


def test_whichever_is_imported_first_checkpoints_can_be_read_and_types_be_found():
    for first in ('import torch, mmengine.registry', 'import usp_mm.registry'):
        run_script(f"""
            {first}
            import usp_mm
            import mmengine.registry, torch
            assert mmengine.registry.MODELS._locations == ['usp_mm.models']
            assert 'HistoryBuffer' in [getattr(one, '__name__', '') for one in torch.serialization.get_safe_globals()]
        """)


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
    monkeypatch.setattr(compat, 'MMAGIC_OPTIONAL', {module: compat.MMAGIC_OPTIONAL[module]})
    monkeypatch.setattr(compat.importlib.util, 'find_spec', lambda package: None)
    compat.mmagic_optional_packages()
    verb = 'is' if len(absent) == 1 else 'are'
    with pytest.raises(ImportError, match=f'^{used}: {" and ".join(absent)} {verb} not .*`pip install {" ".join(absent)}`$'):
        getattr(sys.modules[f'mmagic.{module}'], used)(keys=['img'])


def test_without_one_of_several_packages_that_one_is_named(monkeypatch):
    guider = 'models.editors.disco_diffusion.guider'
    monkeypatch.setitem(sys.modules, f'mmagic.{guider}', None)
    monkeypatch.setattr(compat, 'MMAGIC_OPTIONAL', {guider: ('lpips', 'pandas', 'resize-right')})
    monkeypatch.setattr(compat.importlib.util, 'find_spec', lambda package: None if package == 'resize_right' else 'found')
    compat.mmagic_optional_packages()
    with pytest.raises(ImportError, match=r'^ImageTextGuider: resize-right is not installed: `pip install resize-right`$'):
        sys.modules[f'mmagic.{guider}'].ImageTextGuider()


def test_mmagic_imports_without_any_of_them_and_nobody_else_sees_a_stand_in():
    out = run_script("""
        import sys
        import usp_mm
        from usp_mm.compat import MMAGIC_OPTIONAL

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
            usp_mm.compat.mmagic_optional_packages()
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


def test_a_pipeline_that_diffusers_has_is_left_alone(monkeypatch):
    module = ModuleType('diffusers.pipelines.latent_diffusion')
    module.LDMSuperResolutionPipeline = 'real'
    monkeypatch.setitem(sys.modules, module.__name__, module)
    compat._add_listed_pipeline(module)
    assert module.LDMSuperResolutionPipeline == 'real'


def test_placeholders_have_no_private_attributes_of_their_own():
    placeholder('usp_mm_test_placeholder', lambda name: name)
    module = sys.modules.pop('usp_mm_test_placeholder')
    assert module.public == 'public'
    assert module.__spec__.loader is None
    assert not hasattr(module, '__file__')


def test_numpy_bool8_is_added_only_where_it_is_gone(monkeypatch):
    monkeypatch.setattr(np, 'bool8', 'numpy 1', raising=False)
    compat.numpy_bool8()
    assert np.bool8 == 'numpy 1'
    monkeypatch.delattr(np, 'bool8')
    if hasattr(np, 'bool8'):
        pytest.skip('numpy 1 has it')
    compat.numpy_bool8()
    assert np.bool8 is np.bool_


@pytest.fixture
def logged(monkeypatch):
    """What the current logger is told from here on, by a process that has not yet said anything."""
    said = []
    compat._say_once.cache_clear()
    monkeypatch.setattr(MMLogger.get_current_instance(), 'info', said.append)
    yield said
    compat._say_once.cache_clear()


def test_times_of_diffusers_dit_are_corrected_with_one_line_in_the_log(logged, monkeypatch):
    from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings

    monkeypatch.delenv('USP_DIFFUSERS_TIMES', raising=False)
    assert logged == []
    for _ in range(2):
        times = CombinedTimestepLabelEmbeddings(3, 8).time_proj
        expected = torch.exp(-np.log(10000) * torch.arange(128) / 128)
        torch.testing.assert_close(times(torch.tensor([1.0]))[0, 128:], expected.sin().float(), rtol=0, atol=1e-6)
        assert len(logged) == 1
    assert '10000^(-k/128) for 10000^(-k/127); USP_DIFFUSERS_TIMES=off leaves it as it is' in logged[0]


def test_times_of_diffusers_dit_are_left_alone_if_asked(logged, monkeypatch):
    from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings

    monkeypatch.setenv('USP_DIFFUSERS_TIMES', 'off')
    times = CombinedTimestepLabelEmbeddings(3, 8).time_proj
    expected = torch.exp(-np.log(10000) * torch.arange(128) / 127)
    torch.testing.assert_close(times(torch.tensor([1.0]))[0, 128:], expected.sin().float(), rtol=0, atol=1e-6)
    assert logged == []
    monkeypatch.setenv('USP_DIFFUSERS_TIMES', 'false')
    with pytest.raises(ValueError, match=r"USP_DIFFUSERS_TIMES='false' must be 'on' or 'off'"):
        CombinedTimestepLabelEmbeddings(3, 8)


def test_registries_are_told_at_once_or_on_import(tmp_path, monkeypatch):
    (tmp_path / 'project_a').mkdir()
    (tmp_path / 'project_a' / '__init__.py').touch()
    (tmp_path / 'project_a' / 'registry.py').write_text(
        "from mmengine.registry import Registry\nHOOKS = Registry('hook')\nVISUALIZERS = Registry('visualizer')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compat, 'PROJECTS', ('project_a', 'project_b'))
    present = type(sys)('project_b.registry')
    present.HOOKS = Registry('hook')
    monkeypatch.setitem(sys.modules, 'project_b.registry', present)

    compat.register_on_import()
    assert present.HOOKS._locations == ['usp_mm.engine']
    assert 'project_a.registry' not in sys.modules
    imported = importlib.import_module('project_a.registry')
    assert imported.HOOKS._locations == ['usp_mm.engine']
    assert imported.VISUALIZERS._locations == []  # MMEngine's registries share one default list

    compat.register_on_import()
    assert present.HOOKS._locations == ['usp_mm.engine']


def test_own_types_are_found_before_a_project_is_imported(tmp_path, monkeypatch):
    (tmp_path / 'project_c.py').write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    models = Registry('model', parent=MODELS, scope='project_c', locations=['project_c', 'usp_mm.models'])
    try:
        assert models.get('USPViT').__module__ == 'usp_mm.models.usp_vit'
        for theirs in ('Unknown', 'project_c.USPViT', 'BaseDataPreprocessor'):
            with pytest.raises(RuntimeError, match='imported'):
                models.get(theirs)
    finally:
        MODELS._children.pop('project_c')


def test_a_config_is_formatted_once(monkeypatch):
    calls = []
    module = SimpleNamespace(FormatCode=lambda text, **options: calls.append(text) or (text.upper(), True))
    compat._keep_formatted(module)
    found = [module.FormatCode(text, style_config=dict(a=1)) for text in ('x', 'x', 'y', 'x')]
    assert [text for text, _ in found] == ['X', 'X', 'Y', 'X'] and calls == ['x', 'y', 'x']
    assert Config(dict(a=1)).pretty_text == 'a = 1\n'
    without = SimpleNamespace(Config=Config)
    compat._keep_formatted(without)
    assert vars(without) == dict(Config=Config)


def test_runner_resumes_from_its_own_checkpoint(tmp_path):
    run_script(f"""
        import numpy as np, torch
        import usp_mm
        from mmengine.model import BaseModel
        from mmengine.runner import Runner

        class Model(BaseModel):
            def __init__(self):
                super().__init__()
                self.linear = torch.nn.Linear(1, 1)
            def forward(self, inputs, mode='loss'):
                return dict(loss=self.linear(inputs).square().mean())

        def runner(epochs, **kwargs):
            return Runner(
                Model(), {str(tmp_path)!r}, train_dataloader=dict(
                    dataset=[dict(inputs=torch.ones(1))] * 4, batch_size=2, num_workers=0,
                    collate_fn=dict(type='default_collate'),
                    sampler=dict(type='DefaultSampler', shuffle=False)),
                train_cfg=dict(by_epoch=True, max_epochs=epochs), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                default_scope='mmengine', **kwargs)

        first = runner(1, experiment_name='first')
        first.message_hub.update_info('best_score', np.float32(0.5))
        first.train()
        second = runner(2, experiment_name='second', resume=True)
        second.train()
        assert second.iter == 4
        assert second.message_hub.get_info('best_score') == 0.5
        history = second.message_hub.get_scalar('train/loss')
        assert len(history.data[0]) == 4, history.data
        assert history.data[0][:2].tolist() == first.message_hub.get_scalar('train/loss').data[0].tolist()
    """)


class Reduced:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def saved(tmp_path: Path, content) -> Path:
    torch.save(content, tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


def test_checkpoint_content_loads_as_data(tmp_path):
    history = HistoryBuffer([1.0, 3.0], [1, 1])
    content = dict(
        args=argparse.Namespace(lr=0.1),
        history=history,
        scalars=[np.float64(1.5), np.float32(2.5), np.int64(3), np.int32(4), np.bool_(True)],
        array=np.arange(3),
    )
    loaded = torch.load(saved(tmp_path, content), weights_only=True)
    assert loaded['args'] == content['args']
    assert loaded['history'].statistics('mean') == 2.0
    assert loaded['scalars'] == content['scalars']
    assert loaded['array'].tolist() == [0, 1, 2]


def test_numpy_1_paths_load(tmp_path):
    path = tmp_path / 'file.pth'
    new = getattr(np, '_core', None)
    torch.save(np.float64(1.5), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'numpy._core.multiarray', b'numpy.core.multiarray'))
    assert new is None or path.read_bytes() != data
    assert torch.load(path, weights_only=True) == 1.5


@pytest.mark.parametrize(
    ('function', 'args'),
    [
        (os.system, ('touch hacked',)),
        (eval, ("open('hacked', 'w')",)),
        (getattr, (HistoryBuffer, '__init__')),
        (getattr, (HistoryBuffer, '_set_default_statistics')),
        (getattr, (HistoryBuffer, 'register_statistics')),
        (getattr, (HistoryBuffer, 'data')),
        (getattr, (HistoryBuffer([1.0], [1]), 'mean')),
        (getattr, (np.ndarray, 'tofile')),
        (getattr, (Reduced(getattr, HistoryBuffer, 'mean'), '__globals__')),
        (HistoryBuffer.mean, (HistoryBuffer([1.0], [1]),)),
    ],
)
def test_code_in_a_checkpoint_is_refused(function, args, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, Reduced(function, *args))
    with pytest.raises(UnpicklingError):
        torch.load(path, weights_only=True)
    assert not (tmp_path / 'hacked').exists()


def test_getattr_answers_only_public_methods_of_history_buffer():
    assert compat.history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(UnpicklingError, match="attribute 'system' of <module 'os'"):
        compat.history_buffer_method(os, 'system')
    with pytest.raises(UnpicklingError, match='only methods of HistoryBuffer'):
        compat.history_buffer_method(type('Fake', (HistoryBuffer,), {}), 'mean')


def test_apply_twice_changes_nothing():
    before = dict(sys.modules), torch.serialization.get_safe_globals()
    compat.apply.cache_clear()
    compat.apply()
    assert torch.serialization.get_safe_globals().__len__() == len(before[1])
    assert [name for name in sys.modules if name not in before[0]] == []
    assert sys.modules['mmcv._ext'] is before[0]['mmcv._ext']


@pytest.mark.parametrize('accelerator', [True, False])
def test_memory_is_pinned_where_there_is_something_to_pin_it_for(accelerator, monkeypatch):
    from mmengine.runner import BaseLoop

    class Loop(BaseLoop):
        def run(self):
            """Nothing is run."""

    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: accelerator)
    loader = torch.utils.data.DataLoader([torch.ones(1)] * 4, batch_size=2, pin_memory=True)
    assert Loop(None, loader).dataloader.pin_memory is accelerator
