"""Fixtures that several areas share, and the order of the files."""

import runpy
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers.small_world import ROOT, SmallWorld
from helpers.vae_files import GOLDEN_KL16, kl_weights, save
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.utils.dl_utils import mmcv_full_available

import usp_mm  # noqa: F401  (upstream patches before anything else is imported)


def pytest_configure() -> None:
    """Let Ctrl-C interrupt, in the processes of the tests too: a shell that starts tests in the background ignores it."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left with a long one at the end; none that need what is not here."""
    import torch

    here = dict(
        gpu=torch.cuda.is_available(),
        browser=bool(shutil.which('chromium') and find_spec('playwright')),
        mmcv_ops=bool(find_spec('mmdet') and mmcv_full_available()),
    )
    absent = [item for item in items if any(item.get_closest_marker(name) for name, there in here.items() if not there)]
    config.hook.pytest_deselected(items=absent)
    items[:] = [item for item in items if item not in absent]
    slow = Counter(item.path for item in items if item.get_closest_marker('slow'))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(autouse=True)
def _no_default_scope_left() -> Iterator[None]:
    """A Runner sets the process's default scope; the next test starts without one."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def tiny_vae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised autoencoder of preset 'tiny', in diffusers format, scaling factor 0.5."""
    from usp_mm.vaes.tiny import make_tiny_vae, save_vae

    folder = tmp_path_factory.mktemp('vae') / 'tiny'
    save_vae(make_tiny_vae(scaling_factor=0.5), folder)
    return folder


@pytest.fixture(scope='session')
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo data set: 40 + 20 digits, 6 + 4 scenes; treat it as read-only."""
    from usp_mm.datasets.demo import DemoData, make_demo_data

    folder = tmp_path_factory.mktemp('data') / 'demo'
    make_demo_data(folder, DemoData(train_digits=40, val_digits=20, train_scenes=6, val_scenes=4))
    return folder


@pytest.fixture(scope='session')
def small_world(tmp_path_factory: pytest.TempPathFactory, demo_data: Path, tiny_vae_folder: Path) -> SmallWorld:
    """Everything that lets any config take a step in a second; treat it as read-only."""
    folder = tmp_path_factory.mktemp('small_world')
    return SmallWorld(folder, demo_data, tiny_vae_folder, save(kl_weights(GOLDEN_KL16), folder / 'kl16.safetensors'))


@pytest.fixture(scope='session')
def ended_process() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, '-c', '']) as process:
        pass
    return process.pid


@pytest.fixture
def tool_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a tool in this process, which spares its imports: its exit code, and what it printed, of a failure to stderr."""

    def run(tool: Path | str, *words: object) -> tuple[int, str]:
        monkeypatch.setattr('sys.argv', [str(tool), *map(str, words)])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / tool), run_name='__main__')
        code, printed = end.value.code or 0, capsys.readouterr()
        assert isinstance(code, int), code
        return code, printed.err if code else printed.out

    return run


@pytest.fixture
def logged_lines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(level, line) of everything that is logged."""
    lines: list[tuple[str, str]] = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(MMLogger, level, lambda self, line, level=level: lines.append((level, line)))
    return lines


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a config was checked ('checks'), and each file read by torch.load (by its name)."""
    import torch

    from usp_mm.engine.checks.config import whole_config

    found: Counter[str] = Counter()
    load, schedule = torch.load, whole_config.check_schedule

    def counted_load(file: object, *args: object, **kwargs: object) -> object:
        found[Path(str(file)).name] += 1
        return load(file, *args, **kwargs)

    def counted_check(cfg: object) -> None:
        found['checks'] += 1
        schedule(cfg)

    monkeypatch.setattr(torch, 'load', counted_load)
    monkeypatch.setattr(whole_config, 'check_schedule', counted_check)
    return found
