"""Whether every table and figure of the paper is in docs/paper_tables.yml."""

import re

from .entries import TABLES, Zoo

#: Numbered tables of USP (arXiv 2503.06132): 8 is seven small ones.
PAPER_TABLES = (*map(str, range(1, 8)), *(f'8{part}' for part in 'abcdefg'), *map(str, range(9, 15)))
PAPER_FIGURES = tuple(map(str, range(1, 9)))
FIGURES = 'Figures'


def missing(zoo: Zoo) -> list[str]:
    """Names of tables and figures that have no entry, or one without rows."""
    filled = {table['Table'] for table in zoo.tables if table.get('Rows') or table.get('Settings')}
    rows = [row['Row'] for table in zoo.tables if table['Table'] == FIGURES for row in table.get('Rows', [])]
    figures = {number for row in rows for number in re.findall(r'\d+', row.partition(':')[0])}
    return [
        *(f'Table {number}' for number in PAPER_TABLES if number not in filled),
        *(f'Figure {number}' for number in PAPER_FIGURES if number not in figures),
    ]


def check_completeness(zoo: Zoo) -> None:
    """ValueError that names what is missing."""
    if absent := missing(zoo):
        raise ValueError(
            f"{TABLES} lacks {', '.join(absent)} of the paper: add each as a table, or as a row 'NUMBER: …' of {FIGURES}"
        )
