"""docs/weights.md and the paper's figures: every command is parsed by its tool, and configs fit the released files."""

import re
import runpy
import shlex
import sys

import pytest
import torch
import yaml
from helpers.small_world import ROOT
from mmengine.config import Config
from mmpretrain.registry import MODELS

from usp_mm.checkpoints.kinds import KINDS

PAGE = (ROOT / 'docs' / 'weights.md').read_text()
WEIGHTS = re.findall(r'^(?:python|bash) tools/.*$', PAGE, re.MULTILINE)
TABLES = yaml.load((ROOT / 'docs' / 'paper_tables.yml').read_text(), yaml.BaseLoader)['Tables']
FIGURES = [
    command for table in TABLES for row in table.get('Rows', [])
    for command in ([row['Command']] if isinstance(row.get('Command'), str) else row.get('Command', []))
]  # fmt: skip
#: Released file, converted -> kind it is converted from.
KIND_OF = {found[2]: found[3] for found in re.finditer(r'(convert_checkpoint\.py \S+) (\S+) --from (\S+)', PAGE)}
SAMPLED = [command for command in WEIGHTS if 'tools/sample.py' in command]


def parsed(command, monkeypatch):
    """The arguments that the tool of a command sees."""
    program, tool, *arguments = shlex.split(command)
    if program == 'bash':  # tools/dist_train.sh CONFIG GPUS …
        tool, arguments = 'tools/train.py', [arguments[0], *arguments[2:], '--launcher', 'pytorch']
    monkeypatch.setattr('sys.argv', [tool, *arguments])
    return sys.modules[runpy.run_path(str(ROOT / tool))['main'].__module__].parse_args()


@pytest.mark.parametrize('command', [*WEIGHTS, *FIGURES], ids=lambda command: command[:60])
def test_every_command_parses(command, monkeypatch):
    args = parsed(command, monkeypatch)
    named = [word for word in shlex.split(command) if word.startswith('configs/')]
    assert all((ROOT / word).is_file() for word in named)
    assert not named or args.config == named[0]
    if 'convert_checkpoint' in command:
        assert args.from_ in KINDS


@pytest.mark.parametrize('command', SAMPLED, ids=lambda command: command.split()[3])
def test_a_generators_config_fits_the_kind_of_its_weights(command, monkeypatch):
    """By names and by the number of output channels, of a small network with the config's other settings."""
    args = parsed(command, monkeypatch)
    kind = KIND_OF[args.checkpoint]
    cfg = Config.fromfile(ROOT / args.config, import_custom_modules=False)
    cfg.merge_from_dict(args.cfg_options or {})
    denoiser = cfg.model.denoiser.to_dict() | dict(arch='tiny', vae=cfg.model.data_preprocessor.vae.name, init_cfg=None)
    with torch.device('meta'):
        state = MODELS.build(denoiser).state_dict()
    assert [name for name in state if not re.fullmatch(KINDS[kind].names, name)] == []
    assert ('blocks.0.norm1.weight' in state) == kind.startswith(('usp', 'lightning'))
    patch = 1 if kind == 'lightningdit' else 2
    channels = state['final_layer.linear.bias'].shape[0] // patch**2
    assert channels == {'repa': 4, 'lightningdit': 32}.get(kind, 8)
    assert (cfg.model.objective.get('time_convention') == 'noise_at_1') == (kind == 'repa')


def test_every_converted_file_is_used_and_every_used_one_converted():
    words = [word for command in WEIGHTS for word in re.split('[ =]', command)]
    assert len(KIND_OF) == 13
    for path in KIND_OF:
        assert words.count(path) > 1, path
    used = {word for word in words if word.startswith(('work_dirs/released/', 'pretrained/'))}
    assert {word for word in used if not word.endswith(('.npz', '.json'))} == set(KIND_OF)
    assert {word for word in used if word.endswith('.npz')} == {
        command.split()[2] for command in WEIGHTS if 'evaluate.py work_dirs' in command
    }
    rows = [line for line in PAGE.splitlines() if line.startswith('| ')]
    assert {len(line.split(' | ')) for line in rows} == {4} and len(rows) == 19
