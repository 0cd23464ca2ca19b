"""The generated pages and tables, as Markdown."""

import os
import re
from pathlib import Path
from typing import Any

from usp_mm.analysis.complexity import H100_BF16, IMAGENET, UTILISATION
from usp_mm.presets import ARCHS

from .costs import COUNTS, Cost, Costs
from .entries import TABLES, Claim, Model, Zoo

EXPERIMENTS, RESULTS = 'docs/experiments.md', 'docs/configs.md'
NODE = 8  # GPUs that the commands are for
_MARKED = re.compile(r'(<!-- zoo: (\w+) -->\n).*?(<!-- /zoo -->)', re.DOTALL)


def generate(zoo: Zoo, recount: bool = False) -> dict[str, str]:
    """Path -> content of every file that is generated, or holds generated tables between its markers.

    Raises:
        ValueError: a page without markers, or with markers of a table that there is not.
    """
    costs = Costs(zoo, recount)
    pages = {COUNTS: costs.to_json(), EXPERIMENTS: experiments(zoo, costs)}
    tables = {name: results_table(zoo, table) for name, table in zoo.results.items()}
    pages[RESULTS] = fill(zoo.root, RESULTS, tables)
    for folder in sorted({str(Path(model.config).parent) for model in zoo.models.values()}):
        readme = f'{folder}/README.md'
        models = [model for model in zoo.models.values() if str(Path(model.config).parent) == folder]
        pages[readme] = fill(zoo.root, readme, dict(configs=config_table(models, costs)))
    return pages


def fill(root: Path, path: str, tables: dict[str, str]) -> str:
    """The file's text with `tables` between their markers."""
    text = (root / path).read_text()
    found = {match[2] for match in _MARKED.finditer(text)}
    if found != set(tables):
        raise ValueError(
            f'{path} has markers of {sorted(found)}: expected <!-- zoo: NAME --> … <!-- /zoo --> of {sorted(tables)}'
        )
    return _MARKED.sub(lambda match: f'{match[1]}{tables[match[2]]}{match[3]}', text)


# ---------------------------------------------------------------------- tables of docs/configs.md and the READMEs


def config_table(models: list[Model], costs: Costs) -> str:
    lines = []
    for model in models:
        counted, cost = costs.count(model.name), costs.training(model.name)
        size = (
            ('–', '–')
            if counted is None
            else (_millions(counted['network']['trainable']), _giga(counted['network']['forward']))
        )
        paper = '–' if model.paper == 'no number in the paper' else model.paper
        link = f'[{model.name}]({Path(model.config).name})'
        lines.append([link, paper, _ours(model.ours), *size, '–' if cost is None else _hours(cost.network)])
    return _markdown(['config', 'paper', 'ours', 'trained parameters', 'GFLOPs', 'GPU-hours'], lines) + (
        '\nGFLOPs of a forward pass of the network and GPU-hours of its training, without VAE, teacher and its projector, are '
        'counted by `tools/analysis/get_flops.py`;\n'
        f'the hours assume [what the map of all experiments says](../../{EXPERIMENTS}).\n'
    )


def results_table(zoo: Zoo, table: dict[str, Any]) -> str:
    lines = []
    for row in table['Rows']:
        cells, ours, linked = [], [], {cell['Config'] for cell in row if 'Config' in cell}
        for cell in row:
            if 'Config' in cell:
                cells.append(f'[{cell["Text"]}]({os.path.relpath(zoo.models[cell["Config"]].config, "docs")})')
                continue
            references = [cell['Paper']] if isinstance(cell['Paper'][0], str) else cell['Paper']
            cells.append(', '.join(_reference(zoo, reference, 'Name' in cell) for reference in references))
            ours += [value for reference in references for value in _own(zoo, reference, linked)]
        lines.append([*cells, ', '.join(ours) or 'not run'])
    return _markdown([*table['Columns'], 'ours'], lines)


def _reference(zoo: Zoo, reference: list[str], named: bool) -> str:
    table, row, metric, *remark = reference
    value = zoo.row(table, row)['Paper'][metric]
    return f'{metric} {value}' if named else _remarked(value, remark)


def _own(zoo: Zoo, reference: list[str], linked: set[str]) -> list[str]:
    """Results of the row's configs for a number of the paper."""
    table, row, metric, *remark = reference
    claims = [claim for claim in zoo.claims(table, row) if claim.model in linked]
    return [_remarked(claim.ours[metric], remark) for claim in claims if metric in claim.ours]


def _remarked(value: Any, remark: list[str]) -> str:
    return f'{value} ({remark[0]})' if remark else str(value)


# ---------------------------------------------------------------------- docs/experiments.md


def experiments(zoo: Zoo, costs: Costs) -> str:
    parts = [_introduction(costs), _pretraining(zoo, costs)]
    for table in zoo.tables:
        name, title = table['Table'], table['Title']
        numbered = re.fullmatch(r'\d+[a-g]?|Appendix \w', name)
        heading = title if not numbered else f'Table {name}: {title}' if name[0].isdigit() else f'{name}: {title}'
        body = _settings(zoo, costs, table) if 'Settings' in table else _results(zoo, costs, table)
        parts.append('\n\n'.join([f'## {heading}', *([table['Note']] if 'Note' in table else []), body.rstrip()]))
    return '\n\n'.join(parts).rstrip() + '\n'


def _introduction(costs: Costs) -> str:
    sizes = ', '.join(
        f'{costs.scoring(f"dit-{arch}-p2_usp-pre_8xb32-400k_in1k-256px"):.1f} ({short}/2)'
        for arch, short in (('base', 'B'), ('large', 'L'), ('xl', 'XL'))
    )
    return f"""# Every experiment of the paper

Each row of the tables of USP (arXiv 2503.06132): the config that reaches it, the command, the paper's number, ours, and
what the run would cost. "Not run" means that nobody has run it with this code yet, "cited" that the paper took the number from
another paper. The weights that others have released are in [a table of their own](weights.md). This page is written by
`python tools/make_model_zoo.py` from `{TABLES}` (the paper's rows) and the entries `Tables` in `configs/*/metafile.yml`.

**GPU-hours are estimates**: the training's FLOPs (a multiply-add is two; `tools/analysis/get_flops.py CONFIG` shows them) at
{UTILISATION:.0%} of an H100's dense bfloat16 peak, {H100_BF16 / 1e12:.1f} TFLOP/s, for {IMAGENET:,} images an epoch. The
commands' `--fast` computes in [bfloat16 with compiled blocks](command-line.md#--fast); without it, configs without `-amp` in
their names train in float32, which takes longer. The hours
contain forward and backward pass of the network. "+ VAE" is what encoding each image online would add at the same rate (without
`--fast` it is in float32 and takes longer; from a latent cache it is nothing, as in the configs whose names end in
`-latents`), and with REPA its teacher and projector. "Before" are the runs that a row starts from, without the VAE. Not
contained are validation, data loading and activation checkpointing; drawing the 50,000 samples of one score takes
{sizes} hours more.

Commands are for one node of {NODE} GPUs. Where the config is written for 64, gradients are accumulated over 8 iterations to the
paper's batch, with the config's learning rate: 4,096 = 8 GPUs × 64 images × 8 in pretraining, 16,384 = 8 × 256 × 8 in linear
probes. `--auto-scale-lr` in place of `--cfg-options optim_wrapper.accumulative_counts=8` trains instead at the batch of one
iteration, 512 or 2,048, with an eighth of the learning rate and eight times the optimizer steps in the same number of
epochs: another recipe than the paper's, for which it gives no numbers."""


def _pretraining(zoo: Zoo, costs: Costs) -> str:
    used = {claim.sources[0] for model in zoo.models.values() for claim in model.claims if claim.sources}
    rows, commands = [], []
    for name, model in zoo.models.items():
        if name in used:
            rows.append([_link(model), *_cost_cells(costs.training(name) or Cost(0, 0)), f'`{_checkpoint(costs, (name,))}`'])
            commands.append(_run(zoo, costs, (name,)))
    table = _markdown(['pretraining', 'GPU-hours', '+ VAE', 'checkpoint'], rows)
    return f'## What the rows start from\n\n{table}\n{_block(commands)}'


def _settings(zoo: Zoo, costs: Costs, table: dict[str, Any]) -> str:
    rows = []
    for setting in table['Settings']:
        if 'Arch' in setting:
            arch = ARCHS[setting['Arch']]
            value, key = ', '.join(str(arch[key]) for key in ('depth', 'num_heads', 'embed_dims')), 'usp_mm/presets.py'
            rows.append([setting['Setting'], setting['Paper'], value, f'[`{key}`](../{key})'])
            continue
        model = zoo.models[setting.get('Config') or table['Config']]
        where = _link(model) if 'Config' in setting else ''
        if setting['Key'] == 'parameters':
            value = _millions(costs.count(model.name)['network']['trainable'])
        else:
            value = _value(costs.config(model.name), setting['Key'])
            where = f'`{setting["Key"]}` {where}'.strip()
        rows.append([setting['Setting'], setting['Paper'], value, where])
    note = f'Read from {_link(zoo.models[table["Config"]])} where no other config is named.\n\n' if 'Config' in table else ''
    return note + _markdown(['setting', 'paper', 'here', 'where'], rows)


def _results(zoo: Zoo, costs: Costs, table: dict[str, Any]) -> str:
    rows, commands = [], []
    for row in table['Rows']:
        claims, left = zoo.claims(table['Table'], row['Row']), dict(row['Paper'])
        for claim in claims:
            own, before = costs.claim(claim)
            paper = _paper(row, {metric: row['Paper'][metric] for metric in claim.metrics})
            start = ' → '.join(_link(zoo.models[source]) for source in claim.sources) or '–'
            ours = _numbers(claim.ours) if claim.ours else 'not run'
            config = _link(zoo.models[claim.model])
            rows.append([row['Row'], paper, ours, config, start, *_cost_cells(own), _hours(before.network)])
            left = {metric: value for metric, value in left.items() if metric not in claim.metrics}
            commands += [_run(zoo, costs, claim.sources[:k]) for k in range(2, len(claim.sources) + 1)]
            commands.append(_run(zoo, costs, (*claim.sources, claim.model), claim))
        if left or not claims:
            tools, cited = _commands(row), 'Cited' in row
            why = 'by a tool, below' if tools else row.get('Why not', '–' if cited else 'no config yet')
            ours = 'not run' if tools or (left and not cited) else '–'
            rows.append([row['Row'], _paper(row, left), ours, why, '–', '–', '–', '–'])
            commands += tools
    columns = ['row', 'paper', 'ours', 'config', 'from', 'GPU-hours', '+ VAE', 'before']
    return f'{_markdown(columns, rows)}\n{_block(commands)}' if commands else _markdown(columns, rows)


def _paper(row: dict[str, Any], numbers: dict[str, Any]) -> str:
    return f'{_numbers(numbers)} (cited)' if 'Cited' in row else _numbers(numbers)


def _commands(row: dict[str, Any]) -> list[str]:
    commands = row.get('Command', [])
    return [commands] if isinstance(commands, str) else commands


def _run(zoo: Zoo, costs: Costs, chain: tuple[str, ...], claim: Claim | None = None) -> str:
    """The command of the last of a chain of models, from the checkpoint of the one before."""
    command = zoo.models[chain[-1]].command
    if len(chain) > 1:
        command = command.replace('CHECKPOINT', _checkpoint(costs, chain[:-1]))
        command += f' --work-dir {_folder(chain)}'
    command = _fast(_accumulated(command, chain[-1]))
    return command if claim is None or claim.steps is None else f'{command}  # until step {claim.steps:,}'


def _accumulated(command: str, name: str) -> str:
    """The command for one node, which accumulates the batch of a config that is named for more GPUs."""
    gpus = re.search(r'_(\d+)xb', name)
    if gpus is None or int(gpus[1]) <= NODE:
        return command
    option = f'--cfg-options optim_wrapper.accumulative_counts={int(gpus[1]) // NODE}'
    return command.replace('--cfg-options', option) if '--cfg-options' in command else f'{command} {option}'


def _fast(command: str) -> str:
    """The command for GPUs with `--fast` after their number."""
    return re.sub(rf'(dist_(?:train|test)\.sh .*? {NODE})(?= |$)', r'\1 --fast', command, count=1)


def _folder(chain: tuple[str, ...]) -> str:
    return '/'.join(('work_dirs', *chain))


def _checkpoint(costs: Costs, chain: tuple[str, ...]) -> str:
    return f'{_folder(chain)}/{costs.checkpoint[chain[-1]]}'


# ---------------------------------------------------------------------- pieces


def _markdown(columns: list[str], rows: list[list[str]]) -> str:
    head, *body = (f'| {" | ".join(line)} |\n' for line in (columns, *rows))
    return head + '|---' * len(columns) + '|\n' + ''.join(body)


def _block(commands: list[str]) -> str:
    return '```bash\n' + ''.join(f'{command}\n' for command in dict.fromkeys(commands)) + '```'


def _link(model: Model) -> str:
    return f'[{model.name}]({os.path.relpath(model.config, "docs")})'


def _numbers(values: dict[str, Any]) -> str:
    return ', '.join(f'{metric} {value}' for metric, value in values.items()) or '–'


def _cost_cells(cost: Cost) -> list[str]:
    return [_hours(cost.network), _hours(cost.beside)]


def _hours(value: float) -> str:
    return '0' if not value else '< 0.01' if value < 0.01 else f'{value:,.0f}' if value >= 10 else f'{value:.2g}'


def _millions(value: int) -> str:
    return f'{value / 1e6:,.1f} M'


def _giga(value: int) -> str:
    return f'{value / 1e9:,.1f}'


def _ours(text: str) -> str:
    return 'see [results](../../docs/results.md)' if text == 'see docs/results.md' else text


def _value(cfg: Any, key: str) -> str:
    for part in key.split('.'):
        cfg = cfg[int(part)] if part.isdigit() else cfg[part]
    return ', '.join(map(str, cfg)) if isinstance(cfg, list | tuple) else str(cfg)
