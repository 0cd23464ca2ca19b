import errno
import os

import pytest
from mmengine.fileio import get_file_backend

import usp_mm.engine  # noqa: F401  (registers the backend)


def test_writes_are_whole_or_absent(tmp_path, monkeypatch):
    backend = get_file_backend(str(tmp_path), backend_args=dict(backend='atomic'))
    target = tmp_path / 'sub' / 'epoch_1.pth'
    backend.put(b'old', target)
    assert target.read_bytes() == b'old'

    def full(_):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', full)
    with pytest.raises(OSError, match=r'epoch_1.pth., the disk is full: 14 bytes of it were written'):
        backend.put(b'new and longer', target)
    assert target.read_bytes() == b'old'
    assert [p.name for p in target.parent.iterdir()] == ['epoch_1.pth']


def test_text(tmp_path):
    backend = get_file_backend(str(tmp_path), backend_args=dict(backend='atomic'))
    backend.put_text('größer', tmp_path / 'a.txt')
    assert (tmp_path / 'a.txt').read_text(encoding='utf-8') == 'größer'
