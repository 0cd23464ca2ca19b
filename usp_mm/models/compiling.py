"""The argument `compile` of every model: which parts torch.compile compiles.

'blocks' is PyTorch's recipe of regional compilation (https://docs.pytorch.org/tutorials/recipes/regional_compilation.html):
each transformer block is compiled in place. Blocks share their code, so that one compilation serves all of them, and the names
in the state dict do not change.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

REGIONS = ('blocks', 'loss')
#: Graphs that a run may need of one block: with and without gradients; in float32, under autocast and with bfloat16 weights;
#: for one sample and for many; and one for the first batch. PyTorch's default limit of 8 is too low.
MAX_GRAPHS = 32


class Compiling:
    """Compiles the parts of a model that its argument `compile` selects.

    Args:
        compile: False compiles nothing. 'blocks' compiles every transformer block by itself. 'loss' compiles the whole loss
            with its noise, and also the blocks, which run outside of the loss in sampling and feature extraction. A dict has
            the key `region`, one of the two, and arguments of torch.compile.
        regions: Values of `region` that the model supports.

    Raises:
        ValueError: `compile` has any other value.
    """

    def __init__(self, compile: str | bool | dict = False, regions: tuple[str, ...] = REGIONS) -> None:
        options = dict(compile) if isinstance(compile, dict) else dict(region=compile or None)
        region = options.pop('region', 'blocks')
        if region is not None and region not in regions:
            hint = ": 'loss' needs a loss of this package's own, as USP and generators have" if region in REGIONS else ''
            raise ValueError(f'compile={compile!r} must be False, one of {regions}, or a dict(region=…){hint}')
        self.region, self.options = region, options
        if region is not None:
            _allow_graphs()
            _watch()
            what = 'blocks are' if region == 'blocks' else 'loss is'
            _log_once(
                f'compile: the {what} compiled when first used: that step takes seconds to minutes longer, without a line here',
                logging.INFO,
            )

    def compile_blocks(self, *blocks: Iterable[nn.Module]) -> None:
        """Compile blocks in place, if the model compiles anything."""
        if self.region is not None:
            for block in (block for part in blocks for block in part):
                block.compile(**self.options)

    def loss(self, function: Callable) -> Callable:
        """The function, compiled if the region is 'loss'.

        It takes the model as an argument, so that all copies of the model share one compiled function.
        """
        if self.region != 'loss':
            return function
        return _compiled(function, repr(sorted(self.options.items())), **self.options)


def compile_arguments(
    region: str = 'blocks',
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = 'inductor',
    mode: str | None = None,
    options: dict | None = None,
) -> None:
    """Declares the keys of a dict `compile`: `region` and the arguments of torch.compile."""


def compile_denoiser_as(old: bool | dict, new: str | bool | dict) -> str | bool | dict:
    """The value of `compile` that an older `compile_denoiser` stands for; warns if the older name is used.

    Raises:
        ValueError: Both are set.
    """
    if not old:
        return new
    if new:
        raise ValueError(f'compile_denoiser={old!r} is the older name of compile={new!r}: leave compile_denoiser out')
    meant: str | dict = 'blocks' if old is True else dict(old)
    print_log(
        f'model.compile_denoiser is now model.compile={meant!r}: the older name goes in the next release',
        'current',
        logging.WARNING,
    )
    return meant


_COMPILED: dict[tuple[Callable, str], Callable] = {}


def _compiled(function: Callable, key: str, **options: Any) -> Callable:
    if (function, key) not in _COMPILED:
        _COMPILED[function, key] = torch.compile(function, **options)
    return _COMPILED[function, key]


def _allow_graphs() -> None:
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, MAX_GRAPHS)


def _watch() -> None:
    """Log, once for each reason, what runs without being compiled from now on."""
    from torch._dynamo.callback import on_compile_end

    logging.getLogger('torch._dynamo.convert_frame').addHandler(_HANDLER)
    on_compile_end(lambda *_: _log_graph_breaks())  # again for each model: torch.compiler.reset() forgets it


class _LimitHandler(logging.Handler):
    """Repeats PyTorch's notice that it stops compiling a function, which is otherwise missing from the run's log."""

    def emit(self, record: logging.LogRecord) -> None:
        if 'hit config.' in record.msg:
            assert isinstance(record.args, tuple)
            limit, value, function, reason = (str(part) for part in record.args[:4])
            _log_once(
                f'compile: {function} has its {value} graphs (torch._dynamo.config.{limit}), and from now on runs eager where '
                f'it would need another, first because of: {reason.strip().splitlines()[0]}. Let nothing but the batch size '
                'change between calls, raise that limit, or leave out model.compile'
            )


_HANDLER = _LimitHandler(logging.WARNING)


def _log_graph_breaks() -> None:
    from torch._dynamo.utils import counters

    for reason in counters['graph_break']:
        _log_once(
            f'compile: part of the model runs eager between its graphs, because of: {reason.strip().splitlines()[0]}. '
            'model.compile.fullgraph=True shows where'
        )


@functools.cache
def _log_once(line: str, level: int = logging.WARNING) -> None:
    print_log(line, 'current', level)
