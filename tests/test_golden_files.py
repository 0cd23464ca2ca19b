"""The golden files: names that the official code recorded, and what the README says of them."""

import json
import re

import pytest
from helpers.golden import GOLDEN, NAMES, load
from helpers.small_world import ROOT


def test_names_agree_with_what_was_recorded():
    transfer = load('transfer_mae_to_dit')
    generator, encoder = set(NAMES['usp-dit']), {name for name in NAMES['usp-pretrain'] if 'patch_embed.proj' not in name}
    taken = {f'x_embedder.proj.{kind}' for kind in ('weight', 'bias')} | (encoder & generator)
    assert set(transfer['missing_all'].tolist()) == generator - taken
    assert set(transfer['unexpected_all'].tolist()) == encoder - generator
    quant = {name for name in NAMES['kl16'] if 'quant_conv' in name}
    assert set(load('vae_kl16')['keys'].tolist()) == NAMES['kl16'].keys() - quant
    decayed = json.loads((GOLDEN / 'optim.json').read_text())['layer_decay_075_depth12']
    first_two = {name for name in decayed if int((re.findall(r'^blocks\.(\d+)', name) or [0])[0]) < 2}
    assert first_two == NAMES['timm-avg'].keys() - {'pos_embed'}


@pytest.mark.parametrize('path', sorted(GOLDEN.iterdir()), ids=lambda path: path.name)
def test_every_file_is_described_and_read(path):
    readme = (GOLDEN / 'README.md').read_text()
    if path.name == 'README.md':
        assert all((ROOT / name).is_file() for name in re.findall(r'`(dev/golden/\w+\.py)`', readme))
        return
    assert f'`{path.stem}' in readme
    tests = ''.join(file.read_text() for file in (ROOT / 'tests').rglob('*.py') if file.name != 'test_golden_files.py')
    kind = re.sub('_(token|avg|dit|sit)$', '_', path.stem) if path.stem.startswith(('classify', 'strong')) else path.stem
    assert kind in tests
