"""Load weights strictly: they match the module exactly, or a single error lists what differs."""

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from usp_mm.fileio.weights import misfit_line

ITS_CONFIG = 'give the config it was trained with'
_SHOWN = 3
_REFUSED = re.compile(r'size mismatch for (\S+):')


@dataclass(frozen=True)
class Misfit:
    """The differences between a module and a set of weights; false if there are none, and `str()` lists them.

    Attributes:
        missing: Names in the module that the weights lack.
        unexpected: Names in the weights that the module lacks.
        reshaped: Differing shapes as 'NAME [4, 2] instead of [4, 3]', the weights' shape first.
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
        """The differences that remain if names with one of these prefixes are allowed to be missing, or unexpected."""
        return Misfit(
            tuple(name for name in self.missing if not name.startswith(missing)),
            tuple(name for name in self.unexpected if not name.startswith(unexpected)),
            self.reshaped,
        )


def find_misfit(expected: Mapping[str, Any], found: Mapping[str, Any], resized: Collection[str] = ()) -> Misfit:
    """Compare names and shapes of a module's state dict, `expected`, and of the weights to load into it, `found`.

    Args:
        resized: Names whose shapes may differ, because the module resizes them.
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


def misfit_error(source: str | Path, what: str, difference: object, fix: str) -> ValueError:
    """Make the error for weights that do not fit; see `load_exactly`."""
    name = str(source) if str(source).startswith('the ') else f"'{source}'"
    return ValueError(f'{name} does not fit {what}: {difference}: {fix}')


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
    """Load weights whose names and shapes must be the module's own, except for tensors that the module resizes itself.

    Args:
        source: Origin of the weights, for the error message.
        what: What the weights have to fit, for the error message.
        fix: Advice at the end of the error message.
        allow_missing, allow_unexpected: Prefixes of names that may be missing or unexpected.
        assign: As in `torch.nn.Module.load_state_dict`.

    Returns:
        The differences that were found and allowed.

    Raises:
        ValueError: "'SOURCE' does not fit WHAT: 1 missing (head.bias): FIX". Some weights may have been loaded by then.
    """
    try:
        result = module.load_state_dict(weights, strict=False, assign=assign)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        refused = _REFUSED.findall(str(error))
        expected = module.state_dict()
        found = find_misfit(expected, weights, expected.keys() - set(refused)).without(allow_missing, allow_unexpected)
        raise misfit_error(source, what, found if refused else misfit_line(error), fix) from error
    found = Misfit(tuple(result.missing_keys), tuple(result.unexpected_keys))
    if wrong := found.without(allow_missing, allow_unexpected):
        raise misfit_error(source, what, wrong, fix)
    return found


@contextmanager
def explain_misfit(source: str | Path, what: str, fix: str) -> Iterator[None]:
    """Raise the error of `load_exactly` where a library loads the weights by itself.

    Raises:
        ValueError: Replaces the library's RuntimeError.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise misfit_error(source, what, misfit_line(error), fix) from error


def _shape(value: Any) -> list[int] | str:
    """The shape of a tensor, or the type's name for any other value, such as a layer's extra state."""
    return list(value.shape) if isinstance(value, Tensor) else type(value).__name__
