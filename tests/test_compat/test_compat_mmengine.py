"""Patches of MMEngine: types are found, configs are formatted once, memory is pinned where it helps."""

import importlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, Registry

from usp_mm.compat import mmengine, registries


def test_registries_are_told_at_once_or_on_import(tmp_path, monkeypatch):
    (tmp_path / 'project_a').mkdir()
    (tmp_path / 'project_a' / '__init__.py').touch()
    (tmp_path / 'project_a' / 'registry.py').write_text(
        "from mmengine.registry import Registry\nHOOKS = Registry('hook')\nVISUALIZERS = Registry('visualizer')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registries, 'PROJECTS', ('project_a', 'project_b'))
    present = type(sys)('project_b.registry')
    present.HOOKS = Registry('hook')
    monkeypatch.setitem(sys.modules, 'project_b.registry', present)

    registries.register_on_import()
    assert present.HOOKS._locations == ['usp_mm.engine']
    assert 'project_a.registry' not in sys.modules
    imported = importlib.import_module('project_a.registry')
    assert imported.HOOKS._locations == ['usp_mm.engine']
    assert imported.VISUALIZERS._locations == []  # MMEngine's registries share one default list

    registries.register_on_import()
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
    mmengine._keep_formatted(module)
    found = [module.FormatCode(text, style_config=dict(a=1)) for text in ('x', 'x', 'y', 'x')]
    assert [text for text, _ in found] == ['X', 'X', 'Y', 'X'] and calls == ['x', 'y', 'x']
    assert Config(dict(a=1)).pretty_text == 'a = 1\n'
    without = SimpleNamespace(Config=Config)
    mmengine._keep_formatted(without)
    assert vars(without) == dict(Config=Config)


@pytest.mark.parametrize('accelerator', [True, False])
def test_memory_is_pinned_where_there_is_something_to_pin_it_for(accelerator, monkeypatch):
    from mmengine.runner import BaseLoop

    class Loop(BaseLoop):
        def run(self):
            """Nothing is run."""

    monkeypatch.setattr(torch.accelerator, 'is_available', lambda: accelerator)
    loader = torch.utils.data.DataLoader([torch.ones(1)] * 4, batch_size=2, pin_memory=True)
    assert Loop(None, loader).dataloader.pin_memory is accelerator


def test_a_loading_process_ends_when_its_training_asks_and_at_no_other_signal(tmp_path):
    script = """
import os, signal, subprocess, sys
import usp_mm, torch
from mmengine.runner import Runner
from torch.utils.data import Dataset

class Numbers(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return torch.tensor([index, os.getpid()])

if __name__ == '__main__':
    loader = Runner.build_dataloader(dict(
        dataset=Numbers(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=1, num_workers=1,
        prefetch_factor=1, persistent_workers=True, collate_fn=dict(type='default_collate'),
    ), seed=0)
    batches = iter(loader)
    numbers = [next(batches)[0].tolist()]
    for name in ('TERM', 'USR1'):
        subprocess.run(['kill', f'-{name}', str(numbers[0][1])], check=True)
    numbers += [batch[0].tolist() for batch in batches]
    print([number for number, _ in numbers], len({process for _, process in numbers}))
    multiprocessing_ends_it = batches  # persistent: still running at exit
"""
    (tmp_path / 'load.py').write_text(script)
    done = subprocess.run([sys.executable, tmp_path / 'load.py'], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, '[0, 1, 2, 3, 4, 5, 6, 7] 1\n'), done.stderr


def test_a_loss_of_validation_is_logged_as_it_is():
    """Training's losses are means over the window, as a custom setting of a validation's is."""
    from mmengine.logging import MessageHub
    from mmengine.runner import LogProcessor

    hub = MessageHub.get_instance('latest_validation_loss')
    for value in (1.0, 2.0, 6.0):
        for name in ('train/loss', 'val/held_out_loss', 'val/chosen_loss', 'val/acc', 'val/time'):
            hub.update_scalar(name, value)
    processor, runner = LogProcessor(window_size=10, by_epoch=False), SimpleNamespace(message_hub=hub)
    custom = [dict(data_src='chosen_loss', method_name='max')]
    assert processor._collect_scalars([], runner, 'train') == dict(loss=3.0)
    expected = dict(held_out_loss=6.0, chosen_loss=6.0, acc=6.0, time=3.0)
    assert processor._collect_scalars(custom, runner, 'val') == expected
    expected = {f'val/{name}': value for name, value in {**expected, 'chosen_loss': 1.0}.items()}
    custom = [dict(data_src='chosen_loss', method_name='min')]
    assert processor._collect_scalars(custom, runner, mode='val', reserve_prefix=True) == expected
