"""What a tool imports before it knows what to do: `--help` and wrong arguments come at once."""

import signal
import subprocess
import sys

import pytest
from helpers.small_world import ROOT, run_tool

TOOLS = [str(path.relative_to(ROOT)) for path in sorted(ROOT.glob('tools/**/*.py')) if '__main__' in path.read_text()]
HEAVY = (
    'torch',
    'numpy',
    'PIL',
    'cv2',
    'mmengine',
    'mmcv',
    'mmpretrain',
    'mmseg',
    'mmagic',
    'diffusers',
    'timm',
    'transformers',
)
DIGITS = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
CALLS = """
import contextlib, io, runpy, sys
sys.path.insert(0, 'dev')
for tool in {tools}:
    for option, code in (('--help', 0), ('--no-such-option', 2)):
        sys.argv, printed = [tool, option], io.StringIO()
        try:
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                runpy.run_path(tool, run_name='__main__')
        except SystemExit as end:
            assert end.code == code and 'usage: ' in printed.getvalue(), (tool, option, end.code, printed.getvalue())
        else:
            raise AssertionError(tool)
        loaded = [name for name in {heavy} if name in sys.modules]
        assert not loaded, (tool, option, loaded)
"""


def test_help_and_wrong_options_import_nothing_slow():
    assert len(TOOLS) > 15
    done = run_tool('-c', CALLS.format(tools=TOOLS, heavy=HEAVY))
    assert done.returncode == 0, done.stderr


def test_the_launcher_imports_torch_alone():
    done = run_tool('-X', 'importtime', '-m', 'usp_mm.runtime.torchrun', '--help')
    assert done.returncode == 0 and '--nproc-per-node' in done.stdout
    loaded = {line.rpartition('|')[2].strip() for line in done.stderr.splitlines()}
    assert 'torch' in loaded and not loaded & {
        'mmcv',
        'mmpretrain',
        'mmseg',
        'mmagic',
        'diffusers',
        'timm',
        'cv2',
        'torchvision',
    }


@pytest.fixture
def slow_torch(tmp_path, monkeypatch):
    """The file of a torch that comes first: `import torch` does what is written into it."""
    (tmp_path / 'torch').mkdir()
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}:{ROOT}')
    monkeypatch.delenv('USP_TRACEBACK', raising=False)
    return tmp_path / 'torch' / '__init__.py'


@pytest.mark.parametrize(
    'command', [['tools/train.py', DIGITS], ['-m', 'usp_mm.runtime.torchrun', '--standalone', 'tools/train.py']]
)
def test_ctrl_c_while_it_imports_is_one_line(command, slow_torch):
    slow_torch.write_text('import time\nprint("importing", flush=True)\nfor _ in range(600):\n    time.sleep(0.1)\n')
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, **pipes)
    assert process.stdout.readline() == 'importing\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[1] == 'interrupted\n' and process.returncode == 130


def test_what_is_missing_is_one_line(slow_torch):
    slow_torch.write_text('raise ImportError("libcuda is not there")\n')
    done = run_tool('tools/train.py', DIGITS)
    assert (done.returncode, done.stderr) == (1, 'error: libcuda is not there  (USP_TRACEBACK=1 shows where)\n')


def test_pretraining_imports_mmpretrain_alone_and_sampling_no_model_of_mmagic(small_world, tmp_path):
    script = """
import sys, runpy
import usp_mm
try:
    runpy.run_path('tools/train.py', run_name='__main__')
except SystemExit as end:
    assert not end.code, end.code
print('after pretraining', [name for name in ('mmpretrain', 'mmagic', 'mmseg') if name in sys.modules])

from usp_mm.engine.starting.loading import load_config
from mmengine.registry import MODELS, DefaultScope
cfg = load_config('configs/sit/sit-tiny-p2_1xb64-2k_digits.py', initialises=False, evaluates=False)
with DefaultScope.overwrite_default_scope(cfg.default_scope):
    model = MODELS.build(dict(cfg.model, data_preprocessor=dict(vae=dict(name='tiny', path='{vae}'))))
projects = ('mmagic', 'mmagic.models', 'mmagic.evaluation', 'mmseg')
print('after a', type(model).__name__, [name for name in projects if name in sys.modules])
"""
    script = script.replace('{vae}', str(small_world.tiny_vae_folder))
    options = [f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}', 'train_dataloader.batch_size=4']
    options += [f'train_dataloader.dataset.data_root={small_world.cache("tiny", 64)}', 'train_cfg.max_epochs=1']
    options += ['param_scheduler.0.end=1', 'param_scheduler.1.begin=0']
    done = run_tool('-c', script, DIGITS, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith('after ')] == [
        "after pretraining ['mmpretrain']",
        "after a LatentDiffusionGenerator ['mmagic']",
    ]
    assert (tmp_path / 'run' / 'epoch_1.pth').is_file()
