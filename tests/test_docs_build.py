"""The documentation is built strictly, has the pages that it should, and its links outside Sphinx lead somewhere."""

import importlib
import re
import shutil

import pytest
from helpers.doc_blocks import PAGES
from helpers.small_world import ROOT

STAGES = ('data-and-cache', 'pretrain', 'probe', 'fine-tune', 'segment', 'generate', 'repa', 'va-vae')
PACKAGES = ('apis', 'models', 'layers', 'vaes', 'datasets', 'evaluation', 'segmentation', 'checkpoints', 'engine', 'images')
EXPECTED = {
    *('index', 'get-started', 'demo-data', 'install', 'python', 'convert', 'weights', 'configs', 'command-line', 'clusters'),
    *('architecture', 'vaes', 'initialisation', 'cache-format', 'determinism', 'resume', 'checkpoints', 'classes'),
    *('folders-and-pictures', 'processes', 'glossary', 'results', 'usp-start', 'benchmarks', 'experiments', 'mutations'),
    *('faq', 'changelog', 'contributing', 'api/index', 'imagenet/index', *(f'imagenet/{stage}' for stage in STAGES)),
}


@pytest.fixture
def build(monkeypatch, capsys):
    """Build the documentation in a folder into another: the exit code, and what was told."""
    sphinx = pytest.importorskip('sphinx.cmd.build')

    def run(source, out):
        code = sphinx.build_main(['-q', '-W', '--keep-going', str(source), str(out)])
        return code, capsys.readouterr().err

    return run


@pytest.mark.slow
def test_the_documentation_builds_strictly(tmp_path, build):
    code, told = build(ROOT / 'docs', tmp_path)
    assert (code, told) == (0, '')
    pages = {str(path.relative_to(tmp_path).with_suffix('')) for path in tmp_path.rglob('*.html')}
    assert pages >= EXPECTED
    assert {str(path.relative_to(ROOT / 'docs').with_suffix('')) for path in (ROOT / 'docs').rglob('*.md')} <= pages
    assert 'id="usp_mm.from_pretrained"' in (tmp_path / 'api/apis.html').read_text()
    for package in PACKAGES:
        module, text = importlib.import_module(f'usp_mm.{package}'), (tmp_path / f'api/{package}.html').read_text()
        public = [name for name in module.__all__ if callable(getattr(module, name)) and name != 'from_pretrained']
        assert [name for name in public if f'id="usp_mm.{package}.{name}"' not in text] == []
    assert 'id="usp_mm.functional.masking.mask_from_noise"' in (tmp_path / 'api/functional.html').read_text()
    assert 'href="zoo/usp.html"' in (tmp_path / 'configs.html').read_text()
    assert 'usp_vit-base_64xb64-amp-coslr-800e_in1k' in (tmp_path / 'zoo/usp.html').read_text()


def test_a_broken_link_or_anchor_fails(tmp_path, build):
    source = tmp_path / 'docs'
    source.mkdir()
    shutil.copy(ROOT / 'docs/conf.py', source)
    (source / 'index.md').write_text(
        '# A\n\n[b](absent.md) [c](#no-anchor) [d](other.md#none)\n\n```{toctree}\nother\napp?\n```\n'
    )
    (source / 'other.md').write_text('# Other\n\n## There\n')
    code, told = build(source, tmp_path / 'out')
    assert code and len(re.findall(r'WARNING', told)) == 3
    for word in ('absent.md', 'no-anchor', 'none'):
        assert word in told
    (source / 'index.md').write_text('# A\n\n[d](other.md#there)\n\n```{toctree}\nother\napp?\n```\n')
    assert build(source, tmp_path / 'out') == (0, '')


@pytest.mark.parametrize('page', [page for page in PAGES if not page.startswith('docs/')])
def test_links_of_pages_outside_the_documentation(page):
    """To files of the project and to headings in them."""
    text = re.sub(r'```.*?```', '', (ROOT / page).read_text(), flags=re.DOTALL)
    for target, anchor in re.findall(r'\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)', text):
        file = (ROOT / page).parent / target if target else ROOT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r'^#+ (.*)$', file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r'[^\w\- ]', '', heading).replace(' ', '-').lower() for heading in headings}, anchor


def test_the_readme_is_short():
    text = (ROOT / 'README.md').read_text()
    assert len(text.split()) <= 900
    assert [name for name in ('## Install', '## Results', '## Citation', '## Licence') if name not in text] == []


def test_the_tree_in_the_readme():
    """Every path is there, and every folder of the package is in it."""
    tree = re.search(r'```text\n(usp_mm/.*?)```', (ROOT / 'README.md').read_text(), re.DOTALL)[1]
    named = [(len(line) - len(line.lstrip()), line.split()[0]) for line in tree.splitlines()]
    paths = [f'usp_mm/{name}' if indent else name for indent, name in named]
    assert [path for path in paths if not (ROOT / path).exists()] == []
    rooms = {f'usp_mm/{path.parent.name}/' for path in ROOT.glob('usp_mm/*/__init__.py')}
    assert rooms <= set(paths)
