"""Without mmdet or the compiled operators, detection is refused in one line that names them and the commands."""

import importlib.util
import sys

import pytest
from helpers.small_detection import DETECTION
from helpers.small_world import load_leaf, run_tool
from mmengine.utils.dl_utils import mmcv_full_available

from usp_mm.detection import packages
from usp_mm.detection.packages import BUILD, EXTRA, check_detection_packages
from usp_mm.engine.checks.config import check_config

CONFIG = next(path for path in DETECTION if 'tiny' in path.stem)
COMPLETE = bool(importlib.util.find_spec('mmdet')) and mmcv_full_available()


@pytest.mark.parametrize(('mmdet', 'operators'), [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_missing_is_named_with_its_command(mmdet, operators, monkeypatch):
    monkeypatch.setattr(packages, 'exists', lambda name: mmdet)
    monkeypatch.setattr(packages, 'mmcv_full_available', lambda: operators)
    if mmdet and operators:
        return check_detection_packages()
    for check in (check_detection_packages, lambda: check_config(load_leaf(CONFIG))):
        with pytest.raises(ImportError, match=r'^detection needs ') as error:
            check()
        text = str(error.value)
        assert '\n' not in text
        assert (EXTRA in text, BUILD in text) == (not mmdet, not operators)
        assert ('nms, roi_align' in text) == (not operators)


def test_the_stand_in_of_the_operators_does_not_count():
    """`usp_mm.compat` puts one in their place, for mmseg and mmagic."""
    real = getattr(sys.modules.get('mmcv._ext'), '__file__', None) is not None or bool(
        importlib.util.find_spec('mmcv._ext').loader
    )
    assert mmcv_full_available() == real


@pytest.mark.slow
@pytest.mark.skipif(COMPLETE, reason='both are installed: nothing is refused')
def test_the_tool_refuses_in_one_line(tmp_path):
    done = run_tool('tools/train.py', CONFIG, '--work-dir', tmp_path / 'run')
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert 'detection needs ' in last and BUILD.split(' && ')[1] in last
    assert not list((tmp_path / 'run').rglob('*.pth'))


@pytest.mark.mmcv_ops
def test_a_detector_built_by_hand_is_refused_too(monkeypatch):
    from usp_mm.detection import USPMaskRCNN

    monkeypatch.setattr(packages, 'mmcv_full_available', lambda: False)
    with pytest.raises(ImportError, match='the compiled operators of mmcv'):
        USPMaskRCNN(dict(), dict(), dict(), dict(), dict())
