"""What /proc/cpuinfo tells of a processor."""

import platform

import pytest

from usp_mm.runtime import processor


@pytest.mark.parametrize(
    ('text', 'name', 'found'),
    [
        ('model name\t: A Xeon\nflags\t\t: fpu avx512_bf16 amx_bf16\nflags\t\t: fpu\n', 'A Xeon', ('avx512_bf16', 'amx_bf16')),
        ('model name\t: An EPYC: 2\nflags\t\t: fpu avx2\n', 'An EPYC: 2', ()),
        ('processor\t: 0\nFeatures\t: fp asimd bf16\n', platform.machine(), ('bf16',)),
        ('', platform.machine(), None),
    ],
)
def test_what_is_told(text, name, found, tmp_path, monkeypatch):
    monkeypatch.setattr(processor, '_FILE', tmp_path / 'cpuinfo')
    assert processor.bfloat16_instructions() is None  # no such file
    (tmp_path / 'cpuinfo').write_text(text)
    assert (processor.processor_name(), processor.bfloat16_instructions()) == (name, found)
