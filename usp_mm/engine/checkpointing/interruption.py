"""What an interrupted training has saved, as part of the line that it ends with."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.runner import Runner

from .latest_checkpoint import named_checkpoint


@contextmanager
def telling_what_is_saved(runner: Runner) -> Iterator[None]:
    """Let Ctrl-C in the block say after which iteration it came, and from which checkpoint the run can go on.

    The words become the argument of the KeyboardInterrupt, which `usp_mm.runtime.processes.how_it_ended` reads. An exception of
    a subclass, which is about another signal, stays as it is.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if type(error) is KeyboardInterrupt:
            error.args = (_what_is_saved(runner),)
        raise


def _what_is_saved(runner: Runner) -> str:
    place = f'after iteration {runner.iter}' if runner.iter else 'before its first iteration'
    last = named_checkpoint(Path(runner.work_dir))
    if last is None:
        return f'{place}: no checkpoint was saved yet'
    return f'{place}: the last checkpoint is {last}; the same command with --resume goes on from there'
