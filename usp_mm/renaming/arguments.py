"""Older names of arguments, config keys, options and values, accepted with a warning until the next release."""

import argparse
import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar('T', bound=Callable[..., Any])
#: Older name of a set of weights -> current name. mmagic's metrics and hooks and older files keep saying 'orig'.
WEIGHTS = {'orig': 'model'}


def warn_renamed(older: str, now: str) -> None:
    """Issue a FutureWarning, which Python shows once per place in the code."""
    warnings.warn(f'{older} is now {now}: the older name goes in the next release', FutureWarning, stacklevel=3)


def weights_name(name: Any) -> Any:
    """Replace the older 'orig' in a user's input by 'model', with a warning; any other value is returned unchanged."""
    if name not in WEIGHTS:
        return name
    warn_renamed(f"'{name}', of weights,", f"'{WEIGHTS[name]}'")
    return WEIGHTS[name]


def recorded_weights(name: Any) -> Any:
    """Like `weights_name`, but without a warning: for names that a file has recorded or that mmagic passes."""
    return WEIGHTS.get(name, name)


def older_arguments(**now_of: str) -> Callable[[T], T]:
    """Decorator: let a function or a class's `__init__` also accept older argument names, `older_arguments(older='now')`.

    The older names become keyword-only arguments of the signature, None by default, so that the config check accepts them.

    Raises:
        ValueError: An argument is given under both names.
    """

    def decorate(target: T) -> T:
        if inspect.isclass(target):
            target.__init__ = _taking(target.__init__, target.__name__, now_of)  # type: ignore[method-assign]
            return target
        return _taking(target, target.__name__, now_of)  # type: ignore[return-value]

    return decorate


def older_settings(fold: Callable[[dict[str, Any]], None], *older: str) -> Callable[[type], type]:
    """Decorator: let a class's `__init__` also accept older arguments, which `fold` replaces in a dict of all arguments."""

    def decorate(cls: Any) -> Any:
        function = cls.__init__
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> None:
            if given := {name: kwargs.pop(name) for name in older if name in kwargs}:
                arguments = {**signature.bind_partial(*args, **kwargs).arguments, **given}
                fold(arguments)
                args, kwargs = (), arguments
            function(*args, **kwargs)

        cls.__init__ = call
        return cls

    return decorate


def _taking(function: Callable[..., Any], name: str, now_of: dict[str, str]) -> Callable[..., Any]:
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for older, now in now_of.items():
            if (value := kwargs.pop(older, None)) is None:
                continue
            if now in signature.bind_partial(*args, **kwargs).arguments:
                raise ValueError(f'{name}: {older}={value!r} is the older name of {now}: leave {older} out')
            warn_renamed(f'{older} of {name}', now)
            kwargs[now] = value
        return function(*args, **kwargs)

    call.__signature__ = _with_older(signature, now_of)  # type: ignore[attr-defined]
    return call


def _with_older(signature: inspect.Signature, now_of: dict[str, str]) -> inspect.Signature:
    taken, by_name = list(signature.parameters.values()), inspect.Parameter.KEYWORD_ONLY
    older = [signature.parameters[now].replace(name=name, kind=by_name, default=None) for name, now in now_of.items()]
    end = next((i for i, one in enumerate(taken) if one.kind is one.VAR_KEYWORD), len(taken))
    return signature.replace(parameters=[*taken[:end], *older, *taken[end:]])


def add_older_option(parser: argparse.ArgumentParser, older: str, now: str, **options: Any) -> None:
    """Accept `older` as another name of a command's option `now`, with a warning and hidden from its help.

    Args:
        parser: The command's parser.
        older, now: The two names, such as '--image-size' and '--img-size'.
        options: `type` and `choices` of the option `now`.
    """
    dest = now.lstrip('-').replace('-', '_')
    parser.add_argument(
        older, action=_OlderOption, now=now, dest=dest, default=argparse.SUPPRESS, help=argparse.SUPPRESS, **options
    )


class _OlderOption(argparse.Action):
    def __init__(self, *args: Any, now: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.now = now

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        warn_renamed(str(option_string), self.now)
        setattr(namespace, self.dest, values)
