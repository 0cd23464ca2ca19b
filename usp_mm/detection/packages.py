"""Whether what detection needs is installed: mmdet, and the compiled operators of mmcv."""

from mmengine.utils.dl_utils import mmcv_full_available

from usp_mm.renaming.placeholders import exists

EXTRA = "pip install '.[det]'"
#: How the operators are compiled for the installed torch, in place of mmcv-lite; docs/imagenet/detect.md has the time it takes.
BUILD = "pip uninstall -y mmcv-lite && MMCV_WITH_OPS=1 pip install --no-build-isolation --no-deps 'mmcv==2.1.0'"


def check_detection_packages() -> None:
    """Refuse to build a detector where a package is missing.

    Raises:
        ImportError: mmdet is not installed, or mmcv has no compiled operators, as mmcv-lite has none. The message is one line,
            with the commands that install what is missing, in their order: the extra brings mmcv-lite back.
    """
    missing = []
    if not exists('mmdet'):
        missing.append(f'mmdet: `{EXTRA}` in the checkout of usp_mm')
    if not mmcv_full_available():
        missing.append(f'the compiled operators of mmcv (mmcv.ops: nms, roi_align), which mmcv-lite lacks: `{BUILD}`')
    if missing:
        raise ImportError(f'detection needs {"; and ".join(missing)}')
