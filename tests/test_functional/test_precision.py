"""TF32 in a block, under each of torch's settings for it; nothing of it needs a GPU."""

import pytest
import torch
from helpers.small_world import run_tool

from usp_mm.functional.precision import tf32

newer = pytest.mark.skipif(not hasattr(torch.backends, 'fp32_precision'), reason='torch has one setting only')

#: A process's own settings, the later ones over the earlier.
SETTINGS = [
    'pass',
    'b.cuda.matmul.allow_tf32 = True',
    'b.cudnn.allow_tf32 = False',
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
    "b.fp32_precision = 'tf32'",
    "b.fp32_precision = 'ieee'",
    "b.cudnn.fp32_precision = 'tf32'",
    "b.cuda.matmul.fp32_precision = 'tf32'",
    "b.cuda.matmul.fp32_precision = 'ieee'",
    "b.cudnn.conv.fp32_precision = 'ieee'",
    "b.cudnn.conv.fp32_precision = 'ieee'; b.cudnn.rnn.fp32_precision = 'ieee'",
    "torch.set_float32_matmul_precision('medium'); b.mkldnn.matmul.fp32_precision = 'ieee'",
    "b.fp32_precision = 'tf32'; b.cuda.matmul.fp32_precision = 'ieee'; b.cudnn.allow_tf32 = False",
]
SCRIPT = """
import sys
import torch
from usp_mm.functional.precision import tf32

b = torch.backends
READ = dict(
    products=lambda: b.cuda.matmul.allow_tf32, convolutions=lambda: b.cudnn.allow_tf32,
    name=torch.get_float32_matmul_precision, matmul=lambda: b.cuda.matmul.fp32_precision,
    conv=lambda: b.cudnn.conv.fp32_precision, rnn=lambda: b.cudnn.rnn.fp32_precision,
    cuda=lambda: b.cudnn.fp32_precision, cpu=lambda: b.mkldnn.matmul.fp32_precision, all=lambda: b.fp32_precision)

def read():
    found = {}
    for name, function in READ.items():
        try:
            found[name] = function()
        except RuntimeError:
            found[name] = 'raises'
    return found

def state():
    '''What applies, and what would after `b.fp32_precision` or `b.cudnn.fp32_precision` had been set.'''
    found, generic, cuda = [read()], b.fp32_precision, own_cuda()
    for setting, value in ((b, generic), (b.cudnn, cuda)):
        for precision in ('ieee', 'tf32'):
            setting.fp32_precision = precision
            found.append([b.cuda.matmul.fp32_precision, b.mkldnn.matmul.fp32_precision])
        setting.fp32_precision = value
    return found

def own_cuda():
    value, generic = b.cudnn.fp32_precision, b.fp32_precision
    b.fp32_precision = 'ieee' if value == 'tf32' else 'tf32'
    follows = b.cudnn.fp32_precision != value
    b.fp32_precision = generic
    return 'none' if follows else value

for allowed in (False, True):
    before = state()
    with tf32(allowed):
        inside = read()
        wanted = 'tf32' if allowed else 'ieee'
        assert [inside[name] for name in ('matmul', 'conv', 'rnn')] == [wanted] * 3, inside
        for name in ('products', 'convolutions', 'name'):
            assert inside[name] != 'raises' or before[0][name] == 'raises', (name, before[0], inside)
        assert inside['products'] in (allowed, 'raises') and inside['convolutions'] in (allowed, 'raises')
        assert (inside['cuda'], inside['all']) == (before[0]['cuda'], before[0]['all'])
    assert state() == before, (allowed, before, state())
"""


@newer
def test_every_setting_is_obeyed_in_the_block_and_restored_after_it():
    """Each in a process of its own, forked after torch is imported."""
    script = f"""
import os
import traceback
import torch
import usp_mm.functional.precision

failed = []
for setting in {SETTINGS!r}:
    child = os.fork()
    if not child:
        try:
            b = torch.backends
            exec(setting)
            exec({SCRIPT!r}, {{}})
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        failed.append(setting)
assert not failed, failed
"""
    done = run_tool('-c', script)
    assert done.returncode == 0, done.stderr


def test_settings_are_restored_after_an_error():
    def allowed():
        return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()

    def fail():
        with tf32(True):
            raise KeyError(*allowed())

    before = allowed()
    with pytest.raises(KeyError) as raised:
        fail()
    assert raised.value.args == (True, True, 'high')
    assert allowed() == before
