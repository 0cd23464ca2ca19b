"""usp_mm.compat as a whole: what `import usp_mm` imports, and applying it twice."""

import sys

import torch
from helpers.python_scripts import run_script

from usp_mm import compat
from usp_mm.compat.mmagic import MMAGIC_OPTIONAL


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
        from usp_mm.compat.locations import LOCATIONS
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
    optional = {f'{name.replace("-", "_")}/core.py' for names in MMAGIC_OPTIONAL.values() for name in names}
    moved = ('diffusers/models/unet_2d_condition.py', 'diffusers/pipelines/paint_by_example.py')
    for name in ('mmcv/_ext.py', *moved, *sorted(optional)):
        file = tmp_path / name
        file.parent.mkdir(parents=True)
        file.write_text('real = True')
        for folder in file.relative_to(tmp_path).parents[:-1]:
            (tmp_path / folder / '__init__.py').touch()
    run_script(
        """
        import sys
        import usp_mm
        import mmcv._ext, diffusers.models.unet_2d_condition, diffusers.pipelines.paint_by_example
        assert mmcv._ext.real and diffusers.models.unet_2d_condition.real and diffusers.pipelines.paint_by_example.real
        assert len(usp_mm.compat.mmagic.MMAGIC_OPTIONAL) == 6
        assert not [name for name in sys.modules if name.startswith('mmagic')]
        """,
        tmp_path,
    )


def test_whichever_is_imported_first_checkpoints_can_be_read_and_types_be_found():
    for first in ('import torch, mmengine.registry', 'import usp_mm.registry'):
        run_script(f"""
            {first}
            import usp_mm
            import mmengine.registry, torch
            assert mmengine.registry.MODELS._locations == ['usp_mm.models']
            assert 'HistoryBuffer' in [getattr(one, '__name__', '') for one in torch.serialization.get_safe_globals()]
        """)


def test_apply_twice_changes_nothing():
    before = dict(sys.modules), torch.serialization.get_safe_globals()
    compat.apply.cache_clear()
    compat.apply()
    assert torch.serialization.get_safe_globals().__len__() == len(before[1])
    assert [name for name in sys.modules if name not in before[0]] == []
    assert sys.modules['mmcv._ext'] is before[0]['mmcv._ext']


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
