"""What a training prints before its first step, and what the log file keeps."""

from unittest.mock import patch

import pytest
from helpers.small_world import ROOT

RUNS = {
    'usp/usp_vit-tiny_1xb64-coslr-120e_digits.py': [
        'model.backbone.img_size=64', 'train_cfg.max_epochs=1', 'param_scheduler=None',
    ],
    'sit/sit-tiny-p2_1xb64-2k_digits.py': [
        'train_cfg.max_iters=1', 'default_hooks.visualization.interval=9', 'default_hooks.checkpoint.interval=1',
        'model.denoiser.num_classes=2', 'default_hooks.visualization.vis_kwargs_list.forward_kwargs.labels=[0,1]',
    ],
}  # fmt: skip


@pytest.mark.parametrize('config', RUNS)
def test_a_training_starts_within_ten_lines(small_world, tool_here, tmp_path, config):
    cache = small_world.cache('tiny', 64, flip=False)
    options = [
        f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}', f'train_dataloader.dataset.data_root={cache}',
        'train_dataloader.batch_size=2', 'default_hooks.logger.interval=1', *RUNS[config],
    ]  # fmt: skip
    with patch('mmengine.config.config.FormatCode', lambda text, **_: (text, True)):
        words = [ROOT / 'configs' / config, '--no-validate', '--work-dir', tmp_path, '--cfg-options', *options]
        code, printed = tool_here('tools/train.py', *words)
    assert code == 0, printed
    lines = printed.splitlines()
    first = next(i for i, line in enumerate(lines) if '(train)' in line)
    assert first <= 10, '\n'.join(lines[:first])
    (file,) = tmp_path.glob('*/*.log')
    assert f'config, environment and hooks are in {file}' in lines[0]
    kept = file.read_text()
    for part in ('System environment:', 'Config:\n', 'Hooks will be executed in the following order'):
        assert part in kept and part not in printed
    assert 'FileClient' not in kept and 'SyncBatchNorm' not in kept and 'save_param_scheduler' not in kept
    assert kept.splitlines()[-1].split(' - ', 1)[1] == lines[-1].split(' - ', 1)[1]
