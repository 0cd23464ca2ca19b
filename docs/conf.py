"""Sphinx settings of the documentation: `bash tools/docs.sh` builds it into docs/_build/html.

Sphinx with MyST, because OpenMMLab's projects and PyTorch document themselves with Sphinx: readers know the layout, autodoc
reads the docstrings that are there, and every page stays Markdown that a code host shows as it is. The build is strict: a
broken link, a missing anchor or a page outside the table of contents is a warning, and warnings are errors. It needs no
network; links into the documentation of other projects (intersphinx) are left out for that reason.
"""

import os
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from usp_mm.version import __version__  # noqa: E402

project = 'usp_mm'
author = 'The usp_mm authors'
copyright = author  # Sphinx reads this name
version = release = __version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'sphinx_design',
]
exclude_patterns = ['_build']
html_theme = 'furo'
html_title = f'usp_mm {__version__}'

myst_heading_anchors = 4
myst_enable_extensions = ['colon_fence', 'deflist']
copybutton_prompt_text = '$ '

autodoc_typehints_format = 'short'
autodoc_inherit_docstrings = False  # what comes from upstream is documented there
autodoc_member_order = 'bysource'
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = 'code'  # docstrings are written with single backticks

#: Files outside docs/ that are pages here: links to them lead to the page.
PAGES = {
    'CHANGELOG.md': 'changelog.md',
    'CONTRIBUTING.md': 'contributing.md',
    'tests/README.md': 'tests.md',
    **{f'configs/{name}/README.md': f'zoo/{name}.md' for name in ('usp', 'vit', 'upernet', 'dit', 'sit', 'features')},
}
_LINK = re.compile(r'(?<=\]\()([^)#:\s]+)(?=[)#])')


def pages_for_files(app, docname: str, source: list[str]) -> None:
    """Take the pages of `PAGES` from their files, and turn links to these files into links to the pages."""
    files = {page.removesuffix('.md'): file for file, page in PAGES.items()}
    file = ROOT / files.get(docname, f'docs/{docname}.md')
    here = (ROOT / 'docs' / docname).parent

    def target(match: re.Match) -> str:
        path = (file.parent / match[1]).resolve()
        if not path.is_relative_to(ROOT):
            return match[0]
        if page := PAGES.get(str(path.relative_to(ROOT))):
            path = ROOT / 'docs' / page
        return os.path.relpath(path, here)

    source[0] = _LINK.sub(target, file.read_text() if docname in files else source[0])
    if docname == 'index':  # `page?` in a table of contents is a page that may be absent
        there = {path.stem for path in (ROOT / 'docs').glob('*.md')}
        source[0] = re.sub(r'^([\w-]+)\?\n', lambda match: f'{match[1]}\n' if match[1] in there else '', source[0], flags=re.M)


def escape_docstring(app, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Escape what reStructuredText would read as markup: docstrings are plain sentences with code in backticks."""
    for index, line in enumerate(lines):
        parts = re.split(r'(`+[^`]*`+)', line)
        parts[::2] = [re.sub(r'([*|\\])|(?<=\w)_(?!\w)', lambda match: '\\' + match[0], part) for part in parts[::2]]
        lines[index] = ''.join(parts)


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect('source-read', pages_for_files)
    app.connect('autodoc-process-docstring', escape_docstring, priority=100)  # before napoleon
