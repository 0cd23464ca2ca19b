"""`--cfg-options` of every tool."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Any

from mmengine.config import DictAction

from usp_mm.cfg_values import parse_value


class CfgOptionsAction(DictAction):
    """MMEngine's action with values as in `usp_mm.cfg_values`; what is no KEY=VALUE ends argparse in one line."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in values or ():
            key, equals, text = word.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f"{option_string}: '{word}' is no key=value (a value with spaces is quoted for the shell)")
            try:
                options[key] = parse_value(text)
            except ValueError as error:
                parser.error(f'{option_string} {key}: {error}')
        setattr(namespace, self.dest, options)
