import re
import runpy
import sys

import pytest
import torch
from helpers.checkpoint_files import build, load_strictly, save_official
from helpers.small_world import ROOT, run_tool
from helpers.vae_files import Bomb

from usp_mm.checkpoints import KINDS

TOOL = ROOT / 'tools' / 'convert_checkpoint.py'


def test_a_generator_is_converted_and_every_tensor_told(tmp_path):
    save_official('repa', tmp_path / 'official.pt')
    done = run_tool(TOOL, tmp_path / 'official.pt', tmp_path / 'ours.pth', '--drop', 'projectors.', '--weights', 'ema')
    assert done.returncode == 0, done.stderr
    model = load_strictly(build('repa'), tmp_path / 'ours.pth')
    assert torch.equal(model.denoiser.final_layer.linear.bias, model.denoiser_ema.module.final_layer.linear.bias)
    rows = [[cell.strip() for cell in line.split('│')[1:-1]] for line in done.stdout.splitlines() if '│' in line]
    name = 'blocks.N.mlp.fc1.bias'
    assert ['renamed', f'ema: {name}', f'denoiser_ema.module.{name}', '2'] in rows
    assert ['dropped: as asked', 'model: projectors.0.4.bias', '', '1'] in rows
    assert ['dropped: weights=ema', f'model: {name}', '', '2'] in rows
    assert ['renamed', 'steps', 'denoiser_ema.steps', '1'] in rows
    assert "repa, REPA's SiT with its projector (detected from its names)" in done.stdout + done.stderr
    assert 'repa -> usp_mm: 33 of ' in done.stdout


def test_an_error_is_one_line(tmp_path, tool_here):
    torch.save(Bomb(tmp_path / 'ran'), tmp_path / 'bad.pt')
    code, told = tool_here(TOOL, tmp_path / 'bad.pt', tmp_path / 'out.pth', '--to', 'official')
    assert code == 1 and re.fullmatch(r'error: .*bad\.pt holds more than data .*which is refused.*\n', told)
    assert [path.name for path in tmp_path.iterdir()] == ['bad.pt']


def test_help_lists_kinds_and_targets(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', [str(TOOL), '--help'])
    with pytest.raises(SystemExit):
        runpy.run_path(str(TOOL), run_name='__main__')
    told = capsys.readouterr().out
    assert all(f'{name:<12} {kind.description}' in told for name, kind in KINDS.items())
    assert "diffusers    a folder of diffusers' DiTPipeline" in told
