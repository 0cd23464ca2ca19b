"""Weight transfer against the official code: MAE weights on 4x4 tokens in a DiT on 6x6 tokens (float32)."""

import numpy as np
import pytest
import torch
from helpers.golden import NAMES, golden_weights, load, official_weights
from mmpretrain.registry import MODELS

from usp_mm.models.weight_transfer import transfer_encoder

ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=32, decoder_depth=2, decoder_heads=4)
GOLDEN = load('transfer_mae_to_dit')
#: Official name of a case -> the switch that means the same.
CASES = {'all': None, 'first1': 1}


def official_mae():
    """The official pretraining checkpoint that the numbers were recorded with."""
    return official_weights('usp-pretrain')


def generator(checkpoint=None, **switches):
    init_cfg = checkpoint and dict(type='USPPretrained', checkpoint=str(checkpoint), **switches)
    return MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            data_preprocessor=dict(type='LatentDataPreprocessor', load_vae=False),
            denoiser=dict(type='DiT', arch=ARCH, img_size=96, num_classes=10, init_cfg=init_cfg),
            objective=dict(type='DDPMObjective'),
            sampler=dict(type='DDIMSampler', num_steps=8),
        )
    ).eval()


@pytest.mark.parametrize('case', CASES)
def test_report_names_what_the_official_code_misses_and_leaves(case):
    state = official_mae()
    report = transfer_encoder(generator().denoiser, state, keep_layers=CASES[case])
    assert list(report.random) == GOLDEN[f'missing_{case}'].tolist()
    # The official code deletes the blocks that it does not keep before it compares names.
    deleted = {name for name in state if name.startswith('blocks.1.') and case == 'first1'}
    assert set(report.dropped) == deleted | set(GOLDEN[f'unexpected_{case}'].tolist())
    assert report.resized == {'pos_embed': ((4, 4), (6, 6))}


@pytest.mark.parametrize('case', CASES)
def test_table_and_output_of_network_and_average(case, tmp_path):
    torch.save(dict(model=official_mae(), epoch=1), tmp_path / 'mae.pth')
    model = generator(tmp_path / 'mae.pth', keep_layers=CASES[case])
    model.init_weights()
    # Everything that is not transferred is filled by recipe, and nothing else.
    left = golden_weights({name: NAMES['usp-dit'][name] for name in GOLDEN[f'missing_{case}'].tolist()})
    for network in (model.denoiser, model.denoiser_ema.module):
        np.testing.assert_allclose(network.pos_embed.detach(), GOLDEN['pos_embed'], rtol=0, atol=1e-5)
        network.load_state_dict(left, strict=False)
        with torch.no_grad():
            out = network(*(torch.from_numpy(GOLDEN[name]) for name in ('x', 't', 'y')))
        np.testing.assert_allclose(out, GOLDEN[f'out_{case}'], rtol=0, atol=1e-5)
