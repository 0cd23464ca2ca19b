"""`compile=` of every model: what torch.compile makes one graph of.

'blocks' is PyTorch's recipe of regional compilation (https://docs.pytorch.org/tutorials/recipes/regional_compilation.html):
each transformer block is compiled in place. Blocks share their code, so that one compilation serves all of them, and names in a
state dict stay as they are.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.logging import print_log
from torch import nn

REGIONS = ('blocks', 'loss')
#: Graphs of one block that a run may need, which PyTorch's default of 8 falls short of: with and without gradients, in float32,
#: under autocast and with bfloat16 weights, for a batch of one and of many, and the first batch's own.
MAX_GRAPHS = 32


class Compiling:
    """What a model compiles.

    Args:
        compile: False, nothing; 'blocks', every transformer block by itself; 'loss', the whole loss with the noise in it, and
            the blocks, for what is outside of the loss (sampling, features); or a dict of `region`, one of the two, and
            arguments of torch.compile.
        regions: those that the model has.

    Raises:
        ValueError: another value.
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

    def compile_blocks(self, *blocks: Iterable[nn.Module]) -> None:
        """Compile blocks in place, if the model compiles anything."""
        if self.region is not None:
            for block in (block for part in blocks for block in part):
                block.compile(**self.options)

    def loss(self, function: Callable) -> Callable:
        """What computes a loss, compiled with region 'loss'. The model is an argument of it, so that copies of it share it."""
        if self.region != 'loss':
            return function
        return _compiled(function, repr(sorted(self.options.items())), **self.options)


def arguments(
    region: str = 'blocks',
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str = 'inductor',
    mode: str | None = None,
    options: dict | None = None,
) -> None:
    """The keys of a dict `compile`: `region` and torch.compile's."""


def compile_denoiser_as(old: bool | dict, new: str | bool | dict) -> str | bool | dict:
    """What the older `compile_denoiser` of a generator means as `compile`; says so if it is set.

    Raises:
        ValueError: both are set.
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
    """From now on say once each, in the run's log, what runs without being compiled."""
    from torch._dynamo.callback import on_compile_end

    logging.getLogger('torch._dynamo.convert_frame').addHandler(_HANDLER)
    on_compile_end(lambda *_: _tell_of_graph_breaks())  # again for each model: torch.compiler.reset() forgets it


class _LimitHandler(logging.Handler):
    """PyTorch says that it gives up compiling a function in a log of its own, on the screen alone."""

    def emit(self, record: logging.LogRecord) -> None:
        if 'hit config.' in record.msg:
            assert isinstance(record.args, tuple)
            limit, value, function, reason = (str(part) for part in record.args[:4])
            _tell(
                f'compile: {function} has its {value} graphs (torch._dynamo.config.{limit}), and from now on runs eager where '
                f'it would need another, first because of: {reason.strip().splitlines()[0]}. Let nothing but the batch size '
                'change between calls, raise that limit, or leave out model.compile'
            )


_HANDLER = _LimitHandler(logging.WARNING)


def _tell_of_graph_breaks() -> None:
    from torch._dynamo.utils import counters

    for reason in counters['graph_break']:
        _tell(
            f'compile: part of the model runs eager between its graphs, because of: {reason.strip().splitlines()[0]}. '
            'model.compile.fullgraph=True shows where'
        )


@functools.cache
def _tell(line: str) -> None:
    print_log(line, 'current', logging.WARNING)
