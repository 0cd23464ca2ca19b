"""No false refusal: the check takes configs of the projects that this one builds on, as far as their types exist here."""

import random
import re
from pathlib import Path

import mmengine
import pytest
from mmengine.config import Config

from usp_mm.engine.checks.config import check_config

SITE = Path(mmengine.__file__).parent.parent
#: What is refused rightly: types of packages that are not installed, and by project the slips of its own configs.
ABSENT = {
    'mmpretrain': r"unknown type '(COCO(Caption|Retrieval|VQA)|Flickr30k(Caption|Retrieval)|RefCOCO|NoCaps|OCRVQA|GQA|"
    r"MiniGPT4Dataset|\w*Tokenizer|BertModelCN|CLIPProjection|ModifiedResNet)'",
    'mmseg': r"unknown type 'mmdet\.\w+'",
    'mmagic': r"unknown type '(PairedAlbuTransForms|FastComposer)'",
}
SLIPS = {'mmpretrain': r"unknown key '_delete' in optim_wrapper\.paramwise_cfg|unknown type 'BatchCutMix'"}


def refusals(project, files):
    """What the check says of those configs that can be read: file -> message."""
    refused = {}
    for file in files:
        try:
            cfg = Config.fromfile(file)
        except (ImportError, OSError, RuntimeError, KeyError):  # packages that are not here; files that lack their base
            continue
        cfg.setdefault('default_scope', project)
        try:
            check_config(cfg, initialises=False)
        except ValueError as error:
            refused[file.name] = str(error)
    return refused


def unexpected(project, files):
    """Those that are refused for anything but what is not installed."""
    right = '|'.join(table[project] for table in (ABSENT, SLIPS) if project in table)
    return {name: text for name, text in refusals(project, files).items() if not re.match(right, text)}


def configs(project):
    """Every config of a project."""
    files = sorted((SITE / project / '.mim' / 'configs').glob('*/*.py'))
    return [file for file in files if '_base_' not in file.parts]


@pytest.mark.parametrize('project', ['mmpretrain', 'mmseg', 'mmagic'])
def test_some_configs_of_upstream(project):
    files = random.Random(0).sample(configs(project), 20)
    assert unexpected(project, files) == {}


@pytest.mark.slow
@pytest.mark.parametrize('project', ['mmpretrain', 'mmseg', 'mmagic'])
def test_configs_of_upstream(project):
    """One of each folder, and every third of all."""
    every = configs(project)
    files = {*{file.parent: file for file in every}.values(), *every[::3]}
    assert len(files) > 80
    assert unexpected(project, sorted(files)) == {}
