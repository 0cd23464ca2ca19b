"""Strict loading: a module takes exactly a checkpoint's weights, or one error says what differs."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from usp_mm.weight_files import told_misfit

ITS_CONFIG = 'give the config it was trained with'
_SHOWN = 3
_REFUSED = re.compile(r'size mismatch for (\S+):')


@dataclass(frozen=True)
class Misfit:
    """What differs between a module and weights: false where nothing does, and a part of a sentence where something does.

    Attributes:
        missing: names of the module that the weights lack.
        unexpected: names of the weights that the module has not.
        reshaped: 'NAME [4, 2] instead of [4, 3]', the weights' shape first.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        found = {'missing': self.missing, 'unexpected': self.unexpected, 'of another shape': self.reshaped}
        return '; '.join(
            f'{len(names)} {what} ({", ".join(names[:_SHOWN])}{", …" if len(names) > _SHOWN else ""})'
            for what, names in found.items()
            if names
        )

    def without(self, missing: tuple[str, ...], unexpected: tuple[str, ...]) -> 'Misfit':
        """What is left where names that begin with one of these may be missing, or unexpected."""
        return Misfit(
            tuple(name for name in self.missing if not name.startswith(missing)),
            tuple(name for name in self.unexpected if not name.startswith(unexpected)),
            self.reshaped,
        )


def find_misfit(expected: Mapping[str, Any], found: Mapping[str, Any], resized: Collection[str] = ()) -> Misfit:
    """Compare the names and shapes of two state dicts, a module's and the weights that are to go into it.

    Args:
        resized: names whose shapes may differ, since the module resizes them.
    """
    return Misfit(
        tuple(name for name in expected if name not in found),
        tuple(name for name in found if name not in expected),
        tuple(
            f'{name} {_shape(found[name])} instead of {_shape(value)}'
            for name, value in expected.items()
            if name in found and name not in resized and _shape(found[name]) != _shape(value)
        ),
    )


def misfit_error(source: str | Path, what: str, told: object, fix: str) -> ValueError:
    """The one error of weights that do not fit; see `load_exactly`."""
    name = str(source) if str(source).startswith('the ') else f"'{source}'"
    return ValueError(f'{name} does not fit {what}: {told}: {fix}')


def load_exactly(
    module: nn.Module,
    weights: Mapping[str, Any],
    source: str | Path,
    what: str = 'the config',
    *,
    fix: str = ITS_CONFIG,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
    assign: bool = False,
) -> Misfit:
    """Load weights whose names and shapes are the module's own; what a module resizes by itself may have another size.

    Args:
        source: where the weights come from, as the error names it.
        what: what they have to fit, as the error names it.
        fix: what the error advises.
        allow_missing, allow_unexpected: beginnings of names that may be.
        assign: as in `torch.nn.Module.load_state_dict`.

    Returns:
        What was missing or unexpected and is allowed to be.

    Raises:
        ValueError: "'SOURCE' does not fit WHAT: 1 missing (head.bias): FIX". The module may hold a part of the weights then.
    """
    try:
        result = module.load_state_dict(weights, strict=False, assign=assign)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        refused = _REFUSED.findall(str(error))
        expected = module.state_dict()
        found = find_misfit(expected, weights, expected.keys() - set(refused)).without(allow_missing, allow_unexpected)
        raise misfit_error(source, what, found if refused else told_misfit(error), fix) from error
    found = Misfit(tuple(result.missing_keys), tuple(result.unexpected_keys))
    if wrong := found.without(allow_missing, allow_unexpected):
        raise misfit_error(source, what, wrong, fix)
    return found


@contextmanager
def explain_misfit(source: str | Path, what: str, fix: str) -> Iterator[None]:
    """The error of `load_exactly` where a library loads weights by itself.

    Raises:
        ValueError: in place of the library's RuntimeError.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise misfit_error(source, what, told_misfit(error), fix) from error


def _shape(value: Any) -> list[int] | str:
    """Of a tensor; a layer's extra state may be anything, and says its type."""
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
