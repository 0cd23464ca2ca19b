"""The metafiles' models, the paper's rows (docs/paper_tables.yml), and which model claims which row."""

import ast
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from usp_mm.presets import nearest

TABLES = 'docs/paper_tables.yml'
_CLAIM_KEYS = ('Table', 'Row', 'Metrics', 'From', 'Steps', 'Ours')


@dataclass(frozen=True)
class Claim:
    """A model reaches numbers of a row: `metrics` of it, from the checkpoint of the last of `sources`, after `steps`."""

    model: str
    table: str
    row: str
    metrics: tuple[str, ...]
    sources: tuple[str, ...]
    steps: int | None
    ours: dict[str, Any]


@dataclass
class Model:
    """An entry of a metafile. `command` is the one of the config's docstring."""

    name: str
    config: str
    paper: str
    ours: str
    command: str
    claims: list[Claim] = field(default_factory=list)


@dataclass
class Zoo:
    """Models by name, the paper's tables in order, the tables of docs/configs.md by name."""

    root: Path
    models: dict[str, Model]
    tables: list[dict[str, Any]]
    results: dict[str, dict[str, Any]]

    def row(self, table: str, row: str) -> dict[str, Any]:
        """A row of the paper's; ValueError if there is none."""
        return self._find(self._find(self.tables, 'Table', table, TABLES).get('Rows', []), 'Row', row, f'table {table}')

    def claims(self, table: str, row: str) -> list[Claim]:
        """Who reaches a row."""
        return [c for model in self.models.values() for c in model.claims if (c.table, c.row) == (table, row)]

    @staticmethod
    def _find(items: list[dict[str, Any]], key: str, name: str, where: str) -> dict[str, Any]:
        found = {item[key]: item for item in items}
        if name not in found:
            raise ValueError(f"{where} has no {key.lower()} '{name}': expected one of {list(found)}{nearest(name, found)}")
        return found[name]


def read_zoo(root: Path) -> Zoo:
    """Everything, checked.

    Raises:
        FileNotFoundError: a config or file that is not there.
        ValueError: an entry that refers to nothing.
    """
    content = yaml.load((root / TABLES).read_text(), yaml.BaseLoader)  # numbers as they are printed: 22.10
    zoo = Zoo(root, {}, content['Tables'], content['Results'])
    entries = []
    for metafile in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        for entry in yaml.safe_load((root / metafile).read_text())['Models']:
            path, metadata = root / entry['Config'], entry['Metadata']
            if not path.is_file():
                raise FileNotFoundError(f"{metafile}: no config at '{entry['Config']}'")
            model = Model(entry['Name'], entry['Config'], str(metadata['Paper']), str(metadata['Ours']), _command(path))
            zoo.models[model.name] = model
            entries.append((metafile, model, entry.get('Tables', [])))
    for metafile, model, claims in entries:
        for claim in claims:
            try:
                model.claims.append(_claim(zoo, model.name, claim))
            except ValueError as error:
                raise ValueError(f'{metafile}, {model.name}: {error}') from error
    return zoo


def _claim(zoo: Zoo, model: str, entry: dict[str, Any]) -> Claim:
    for key in entry:
        if key not in _CLAIM_KEYS:
            raise ValueError(f"unknown key '{key}' in Tables: expected {list(_CLAIM_KEYS)}{nearest(key, _CLAIM_KEYS)}")
    table, row = str(entry['Table']), str(entry['Row'])
    numbers = zoo.row(table, row)['Paper']
    metrics = tuple(entry.get('Metrics') or numbers)
    sources = entry.get('From') or ()
    sources, ours = (sources,) if isinstance(sources, str) else tuple(sources), entry.get('Ours') or {}
    for what, names, valid in (('metric', (*metrics, *ours), numbers), ('config', sources, zoo.models)):
        for name in names:
            if name not in valid:
                raise ValueError(f"no {what} '{name}' of table {table}, row '{row}'{nearest(name, valid)}")
    return Claim(model, table, row, metrics, sources, entry.get('Steps'), ours)


def _command(path: Path) -> str:
    """The command of a config's docstring, in one line, without the remark behind it."""
    lines = (ast.get_docstring(ast.parse(path.read_text())) or '').replace('\\\n', ' ').splitlines()
    command = next((line for line in lines if line.startswith(('bash tools/', 'python tools/'))), '')
    return re.sub(r'\s+', ' ', re.sub(r'\s+\(.*\)$', '', command))
