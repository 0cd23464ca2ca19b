"""What the libraries below log or warn of that is of no use to the user of a run, and where it is left out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

#: Beginnings of records that are left out of the terminal and of the log file: about MMEngine's own code, or about nothing.
NOWHERE = (
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'Distributed training is not used, all SyncBatchNorm (SyncBN) layers',
    '`save_param_scheduler` is True but `self.param_schedulers` is None',
    'Failed to search registry with scope "mmseg" in the "function" registry tree',
    'The prefix is not set in metric class IoUMetric',
    'Exp name: ',  # again after each epoch; it is in the name of the log
    'Loads checkpoint by local backend from path: ',  # in each process; who asked for the file says so once
)
#: Beginnings of records of a hundred lines and more, which only the log file keeps.
IN_THE_FILE = ('\n' + '-' * 60 + '\nSystem environment:', 'Config:\n', 'Hooks will be executed in the following order')
#: Loggers of libraries whose own handlers write such records while they are imported, and the beginning of each.
ON_IMPORT = {'transformers.utils.import_utils': ('`Siglip2ImageProcessorFast` is deprecated',)}  # diffusers' own import
#: Warnings about code of a library, not about what the user does: (message as a regular expression, module that issues it).
WARNINGS = (
    (r'This DataLoader will create \d+ worker processes', r'torch\.utils\.data\.dataloader'),
    (r'`broadcast_buffers` is deprecated', r'mmengine\.model\.wrappers\.distributed'),  # MMEngine names it in every case
    (r"Failed to add <class 'mmengine\.visualization\.", r'mmengine\.visualization\.visualizer'),
    (r'The draw is False, it means that the hook', r'mmseg\.engine\.hooks\.visualization_hook'),
    (r'``build_loss`` would be deprecated soon', r'mmseg\.models\.builder'),
    (r'Default ``avg_non_ignore`` is False', r'mmseg\.models\.losses\.cross_entropy_loss'),
)
#: MMEngine's warning that a schedule began before the first step of the optimizer.
_EARLY = r'Detected call of `scheduler\.step\(\)` before `optimizer\.step\(\)`', r'mmengine\.optim\.scheduler\.param_scheduler'


def quiet_logger(logger: logging.Logger) -> None:
    """Leave the records above out of what the handlers of a logger write."""
    for handler in logger.handlers:
        handler.addFilter(_not_upstream)
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(_not_long)


def quiet_imports() -> None:
    """Leave out what `ON_IMPORT` lists, at the loggers themselves, before the libraries are imported."""
    for name, beginnings in ON_IMPORT.items():
        logging.getLogger(name).addFilter(partial(_begins_otherwise, beginnings=beginnings))


def quiet_warnings() -> None:
    """Ignore the warnings above; filters that are set later, such as those of `python -W`, come before these."""
    for message, module in WARNINGS:
        warnings.filterwarnings('ignore', message, module=module)


@contextmanager
def schedule_before_steps() -> Iterator[None]:
    """Ignore, in the block, the warning that a schedule began before the first step of the optimizer.

    Where gradients accumulate it is false: the schedule counts iterations, and the first step comes after several.
    """
    message, module = _EARLY
    warnings.filterwarnings('ignore', message, UserWarning, module)
    added = warnings.filters[0]
    try:
        yield
    finally:
        if added in warnings.filters:  # a `catch_warnings` that has ended took it away
            warnings.filters.remove(added)  # type: ignore[attr-defined]


def _not_upstream(record: logging.LogRecord) -> bool:
    return not _begins(record, NOWHERE)


def _not_long(record: logging.LogRecord) -> bool:
    return not _begins(record, IN_THE_FILE)


def _begins_otherwise(record: logging.LogRecord, beginnings: tuple[str, ...]) -> bool:
    return not _begins(record, beginnings)


def _begins(record: logging.LogRecord, beginnings: tuple[str, ...]) -> bool:
    text: Any = record.msg
    return isinstance(text, str) and text.startswith(beginnings)
