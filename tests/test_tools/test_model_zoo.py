"""The generated pages are up to date, every row of the paper has its config, and OpenMIM reads the metafiles."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from helpers.small_world import ROOT, load_leaf
from modelindex.load_model_index import load

from usp_mm.analysis.complexity import gpu_hours

TOOL = ROOT / 'tools' / 'make_model_zoo.py'


pytestmark = pytest.mark.usefixtures('dev_importable')


@pytest.fixture
def call(tool_here):
    """(exit code, output) of tools/make_model_zoo.py."""
    return lambda *words: tool_here(TOOL, *words)


@pytest.fixture
def zoo():
    from model_zoo.entries import read_zoo

    return read_zoo(ROOT)


def stubs(besides):
    """A table for each of the paper's but these, and its figures."""
    from model_zoo.completeness import PAPER_FIGURES, PAPER_TABLES

    row = dict(Row='only', Paper={}, **{'Why not': 'a stub'})
    tables = [dict(Table=name, Title='stub', Rows=[row]) for name in PAPER_TABLES if name not in besides]
    return [*tables, dict(Table='Figures', Title='Figures', Rows=[row | dict(Row=f'{", ".join(PAPER_FIGURES)}: all')])]


@pytest.fixture
def small_root(tmp_path):
    """A project of DiT alone, whose pages and metafile can be spoilt."""
    for name in ('_base_', 'dit'):
        shutil.copytree(ROOT / 'configs' / name, tmp_path / 'configs' / name)
    (tmp_path / 'docs').mkdir()
    shutil.copy(ROOT / 'docs' / 'complexity.json', tmp_path / 'docs')
    (tmp_path / 'model-index.yml').write_text('Import: [configs/dit/metafile.yml]\n')
    (tmp_path / 'docs/configs.md').write_text('before\n<!-- zoo: few -->\n<!-- /zoo -->\nafter\n')
    names = [f'dit-{arch}-p2_usp-pre_8xb32-400k_in1k-256px' for arch in ('base', 'large', 'xl')]
    models = [dict(Name=n, Config=f'configs/dit/{n}.py', Metadata=dict(Paper='FID 1.50', Ours='not run')) for n in names]
    models[0]['Tables'] = [dict(Table=2, Row='large', Ours=dict(FID=9.9))]
    models[1]['Metadata']['Ours'] = 'FID 1.4'
    models[1]['Tables'] = [
        dict(Table=2, Row='large', Ours=dict(FID=1.4)),
        dict(Table='8g', Row='half', Metrics=['IS'], Steps=100_000),
    ]
    (tmp_path / 'configs/dit/metafile.yml').write_text(yaml.safe_dump(dict(Models=models)))
    tables = [
        dict(Table='2', Title='DiT', Rows=[dict(Row='large', Paper=dict(FID='1.50')), dict(Row='giant', Paper=dict(FID='1'))]),
        dict(Table='8g', Title='Blocks', Rows=[dict(Row='half', Paper=dict(IS='9', FID='3'))]),
    ]
    few = dict(Columns=['model', 'paper'], Rows=[[dict(Text='L', Config=names[1]), dict(Paper=['2', 'large', 'FID'])]])
    tables += stubs(besides=('2', '8g'))
    (tmp_path / 'docs/paper_tables.yml').write_text(yaml.safe_dump(dict(Tables=tables, Results=dict(few=few))))
    return tmp_path


@pytest.mark.slow
def test_pages_are_up_to_date(call):
    """With the configs, and with what the code counts of them."""
    assert call('--check', '--recount') == (0, 'everything is up to date\n')


def test_every_row_of_the_paper_has_a_config_a_tool_or_a_reason(zoo):
    open_rows = {
        (table['Table'], row['Row'])
        for table in zoo.tables
        for row in table.get('Rows', [])
        if not zoo.claims(table['Table'], row['Row']) and not {'Command', 'Why not', 'Cited'} & set(row)
    }
    assert not open_rows
    for table in zoo.tables:
        for row in table.get('Rows', []):
            claimed = [metric for claim in zoo.claims(table['Table'], row['Row']) for metric in claim.metrics]
            assert not claimed or set(claimed) == set(row['Paper'])


def test_the_papers_numbers_are_those_of_the_metafiles(zoo):
    compared = 0
    for model in zoo.models.values():
        for claim in model.claims:
            if claim.table in ('2', '3', '4', '10', '3.3.1', '7', '6') and claim.steps is None:
                numbers = zoo.row(claim.table, claim.row)['Paper']
                assert all(numbers[metric] in model.paper for metric in claim.metrics), claim
                compared += len(claim.metrics)
    assert compared > 50


def test_commands_train_at_the_papers_batches():
    """8 GPUs: 4,096 in pretraining, 16,384 in linear probes, by accumulation, at the config's learning rate."""
    page = (ROOT / 'docs/experiments.md').read_text()
    commands = set(re.findall(r'^bash tools/dist_train.sh (\S+) 8(.*)$', page, re.MULTILINE))
    batches = {}
    for path, rest in commands:
        cfg = load_leaf(path)
        counts = re.search(r' optim_wrapper\.accumulative_counts=(\d+)', rest)
        batch = 8 * cfg.train_dataloader.batch_size * int(counts[1] if counts else 1)
        assert batch == cfg.auto_scale_lr.base_batch_size, path
        assert '--auto-scale-lr' not in rest and rest.count('--cfg-options') <= 1
        batches.setdefault('probe' if 'linear' in path else Path(path).parent.name, set()).add(batch)
    assert (batches['usp'], batches['probe']) == ({4096}, {16384})
    assert 'optim_wrapper.accumulative_counts=8 model.backbone.init_cfg.checkpoint=work_dirs/' in page


def test_the_docstring_names_the_checkpoint_of_the_metafile(zoo):
    """Of every SiT row, and of the DiT rows whose number of epochs does not stand beside the paper's number."""
    named = 0
    for model in zoo.models.values():
        lines = ast.get_docstring(ast.parse((ROOT / model.config).read_text())).splitlines()
        told = [name for line in lines if line.startswith('From: ') for name in re.findall(r'usp_vit[\w-]+', line)]
        if told:
            assert {claim.sources[0] for claim in model.claims} <= set(told) <= set(zoo.models), model.name
            named += len(model.claims)
        sit = model.name.startswith('sit-') and not model.name.endswith(('_digits', '_own', '_emoji-128px'))
        assert bool(told) == (sit and 'usp-pre' in model.name) or 'dit-' in model.name, model.name
        if sit and told:
            assert '1600e' in told[0] and ('256px' in told[0]) == bool(re.search('va-f16d32|512px', model.name))
    assert named > 10


def test_writing_checking_and_what_is_around(small_root, call):
    assert call('--root', small_root, '--check')[0] == 1
    assert not (small_root / 'docs/experiments.md').exists()
    (small_root / 'configs/dit/README.md').write_text('# DiT\n<!-- zoo: configs -->\nold\n<!-- /zoo -->\nmine\n')
    assert call('--root', small_root)[0] == 0
    assert call('--root', small_root, '--check') == (0, 'everything is up to date\n')

    page = (small_root / 'docs/experiments.md').read_text()
    name = 'dit-large-p2_usp-pre_8xb32-400k_in1k-256px'
    link = f'[{name}](../configs/dit/{name}.py)'
    counts = json.loads((small_root / 'docs/complexity.json').read_text())[name]['counts']
    own, vae = (gpu_hours(400_000 * 256 * x) for x in (counts['network']['train'], counts['vae']['encode']))
    assert f'| large | FID 1.50 | FID 1.4 | {link} | – | {own:.0f} | {vae:.0f} | 0 |' in page
    assert f'| half | IS 9 | not run | {link} | – | {own / 4:.2g} | {vae / 4:.2g} | 0 |' in page
    assert '| half | FID 3 | not run | no config yet | – | – | – | – |' in page
    assert '| giant | FID 1 | not run | no config yet |' in page
    assert '## Table 8g: Blocks' in page and '# until step 100,000' in page
    readme = (small_root / 'configs/dit/README.md').read_text()
    assert (
        readme.startswith('# DiT\n<!-- zoo: configs -->\n| config |')
        and readme.endswith('<!-- /zoo -->\nmine\n')
        and 'old' not in readme
    )
    row = next(line for line in readme.splitlines() if f'[{name}]' in line)
    assert row.split(' | ')[1:4] == ['FID 1.50', 'FID 1.4', '457.9 M']
    assert (small_root / 'docs/configs.md').read_text().split('\n')[2:6] == [
        '| model | paper | ours |', '|---|---|---|', f'| [L](../configs/dit/{name}.py) | 1.50 | 1.4 |', '<!-- /zoo -->',
    ]  # fmt: skip

    (small_root / 'docs/configs.md').write_text('no markers\n')
    assert 'docs/configs.md has markers of []: expected <!-- zoo: NAME -->' in call('--root', small_root, '--check')[1]


@pytest.mark.parametrize(
    ('entry', 'error'),
    [
        (dict(Table='22', Row='large'), "docs/paper_tables.yml has no table '22'"),
        (dict(Table='2', Row='larg'), "table 2 has no row 'larg': expected one of ['large', 'giant']; did you mean 'large'?"),
        (dict(Table='2', Row='large', Metrics=['IS']), "no metric 'IS' of table 2, row 'large'"),
        (dict(Table='2', Row='large', Ours=dict(fid=1.4)), "no metric 'fid' of table 2, row 'large'"),
        (dict(Table='2', Row='large', From='usp'), "no config 'usp' of table 2, row 'large'"),
        (dict(Table='2', Row='large', Steps_='1'), "unknown key 'Steps_' in Tables: expected"),
    ],
)
def test_a_wrong_entry_is_one_error(entry, error, small_root, call):
    metafile = small_root / 'configs/dit/metafile.yml'
    content = yaml.safe_load(metafile.read_text())
    content['Models'][1]['Tables'] = [entry]
    metafile.write_text(yaml.safe_dump(content))
    code, told = call('--root', small_root, '--check')
    assert code == 1 and error in told and 'configs/dit/metafile.yml, dit-large' in told


def test_openmim_reads_the_metafiles():
    """As `mim search` does: by model-index; a metadata value that is a list has to be one of strings."""
    index = load(str(ROOT / 'model-index.yml'))
    assert all(re.search(r'Path to README file configs/\w+/README.md', error) for error in index.check(silent=True))
    assert all((ROOT / collection.readme).is_file() for collection in index.collections)
    collections = {collection.name for collection in index.collections}
    names = [model.name for model in index.models]
    assert len(names) == len(set(names)) > 90
    for model in index.models:
        assert model.in_collection in collections
        assert (ROOT / model.config).is_file() and model.name == (ROOT / model.config).stem
        for value in model.metadata.data.values():
            assert isinstance(value, str | int | float) or all(isinstance(item, str) for item in value)
        for result in model.results or ():
            assert result.task and result.dataset and result.metrics


@pytest.mark.parametrize('name', ['Table 4', 'Table 8c', 'Table 14', 'Figure 6', 'Figure 8'])
def test_a_table_or_figure_of_the_paper_may_not_be_missing(name, small_root, call, zoo):
    """Nor be there without rows."""
    from model_zoo.completeness import PAPER_FIGURES, PAPER_TABLES, missing

    assert (len(PAPER_TABLES), len(PAPER_FIGURES), missing(zoo)) == (20, 8, [])
    kind, number = name.split()
    file = small_root / 'docs/paper_tables.yml'
    content = yaml.safe_load(file.read_text())
    table = next(t for t in content['Tables'] if t['Table'] == (number if kind == 'Table' else 'Figures'))
    if kind == 'Table':
        table['Rows'] = []
    else:
        table['Rows'][0]['Row'] = table['Rows'][0]['Row'].replace(number, '')
    file.write_text(yaml.safe_dump(content))
    for option in ([], ['--check']):
        code, told = call('--root', small_root, *option)
        assert code == 1 and f"lacks {name} of the paper: add each as a table, or as a row 'NUMBER: …' of Figures" in told
    assert not (small_root / 'docs/experiments.md').exists()


def test_the_numbers_that_the_paper_prints(zoo):
    """Some that were wrong or lacking once."""

    def numbers(table, row):
        return list(zoo.row(table, row)['Paper'].values())

    assert numbers('5', 'USP') == ['700K', '98', '36', '62', '9.51']
    assert numbers('5', 'REPA') == ['850K', '1904', '1833', '71', '9.6']
    assert numbers('Appendix A', 'noised input, clean target') == ['32.20', '43.36']
    assert numbers('8a', 'pixel MAE') == ['43.55', '33.60']
    assert numbers('8g', 'last 6 random')[2:] == ['37.89', '0.52', '0.63']
    assert numbers('9', 'fine-tuned') == ['39.35', '35.65']
    assert numbers('11', "ImageNet's mean and std") == ['0.375', '82.0', '60.8', '78.23']
    (claim,) = zoo.claims('5', 'USP')
    assert claim.steps == 700_000
    cited = {(t['Table'], row['Row']): row['Paper'] for t in zoo.tables for row in t.get('Rows', []) if 'Cited' in row}
    assert {table for table, _ in cited} == {'2', '4', '6', '7'} and len(cited) == 17
    assert cited['7', 'MaskFeat 1600 epochs'] == {'mIoU': '48.3'} and cited['6', 'SemMAE base'] == {'SFT': '83.4', 'LP': '65.0'}


def test_what_the_page_says_that_encoding_online_costs() -> None:
    counts = {name: entry['counts'] for name, entry in json.loads((ROOT / 'docs/complexity.json').read_text()).items()}

    def cost(*names: str) -> list[tuple[float, float]]:
        pairs = [(counts[name]['network']['train'], counts[name]['vae']['train']) for name in names]
        return [(network / 1e9, 100 * vae / (network + vae)) for network, vae in pairs]

    text = (ROOT / 'docs/imagenet/data-and-cache.md').read_text()
    usp = cost(*(f'usp_vit-{arch}_64xb64-amp-coslr-800e_in1k' for arch in ('base', 'large', 'xl')))
    sizes, shares = (' / '.join(format(pair[i], spec) for pair in usp) for i, spec in ((0, '.1f'), (1, '.0f')))
    assert f'| pretraining ViT-B / L / XL, 224 px | {sizes} | {shares} % |' in text
    [(size, share)] = cost('vit-base_usp-pre_8xb128-amp-coslr-100e_in1k')
    assert f'| fine-tuning ViT-B, 224 px | {size:.1f} | {share:.0f} % |' in text
    dit, sit = cost('dit-base-p2_8xb32-400k_in1k-256px', 'sit-xl-p2_8xb32-400k_in1k-256px')
    assert f'| DiT-B/2, SiT-XL/2, 256 px | {dit[0]:.1f}, {sit[0]:.1f} | {dit[1]:.0f}, {sit[1]:.0f} % |' in text
    encode = [counts[f'usp_vit-base_64xb64-amp-coslr-800e_in1k{size}']['vae']['encode'] / 1e9 for size in ('', '-256px')]
    assert f'in {encode[0]:.1f} GFLOP at 224 pixels ({encode[1]:.1f} at' in ' '.join(text.split())
