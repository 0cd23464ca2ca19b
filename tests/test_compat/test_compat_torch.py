"""Patches of torch and torchvision: operators, and checkpoints that are read as data."""

import argparse
import os
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
from helpers.python_scripts import run_script
from mmengine.logging import HistoryBuffer

from usp_mm.compat.torch import history_buffer_method, torchvision_schemas


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
    torchvision_schemas()
    assert declared == []


def test_processes_that_are_started_again_have_a_part_of_the_store_to_themselves(monkeypatch):
    server = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    for name, value in dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=server.port, RANK=0, WORLD_SIZE=1).items():
        monkeypatch.setenv(name, str(value))

    def store_of(start, shared='True'):
        monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', start)
        monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', shared)
        return next(torch.distributed.rendezvous('env://'))[0]

    first, second, third = (store_of(start) for start in ('0', '1', '2'))
    first.set('address', 'old')
    second.set('address', 'new')
    assert first.get('address') == b'old' and second.get('address') == b'new' and not third.check(['address'])
    assert server.get('address') == b'old'  # the first start is as torch makes it
    monkeypatch.setenv('GROUP_WORLD_SIZE', '2')  # several nodes, whose launchers count apart
    assert store_of('1').get('address') == b'old'


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
    assert history_buffer_method(HistoryBuffer, 'mean') is HistoryBuffer.mean
    with pytest.raises(UnpicklingError, match="attribute 'system' of <module 'os'"):
        history_buffer_method(os, 'system')
    with pytest.raises(UnpicklingError, match='only methods of HistoryBuffer'):
        history_buffer_method(type('Fake', (HistoryBuffer,), {}), 'mean')
