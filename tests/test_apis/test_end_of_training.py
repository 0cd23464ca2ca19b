"""The model folder that a training ends with."""

import logging
from types import SimpleNamespace

import pytest
import torch
from helpers.small_training import MIX
from helpers.small_world import ROOT
from helpers.trained_files import load, small_config

from usp_mm.apis.end_of_training import write_final_folder


@pytest.fixture
def end(files, tmp_path, caplog):
    """A function that ends a training at an iteration with a kind's checkpoint, and returns what is logged."""

    def run(kind, iteration=9):
        (tmp_path / 'last_checkpoint').write_text(str(files[kind]))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            write_final_folder(SimpleNamespace(work_dir=str(tmp_path), iter=iteration, logger=logging.getLogger('end')))
        return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == 'end']

    return run


def test_a_generators_folder_has_the_averaged_weights_and_replaces_an_earlier_one(end, files, tmp_path):
    end('pretraining')
    ((level, told),) = end('generator')
    assert level == 'INFO' and told.startswith(f"usp_mm.from_pretrained('{tmp_path}/model') loads the model")
    averaged = torch.load(files['generator'], weights_only=True)['state_dict']['denoiser_ema.module.final_layer.linear.weight']
    found = load(tmp_path / 'model')
    assert torch.equal(found.model.denoiser.final_layer.linear.weight, averaged)
    assert found.classes[3] == 'three' and found.source.facts['weights'] == 'ema'
    assert sorted(path.name for path in tmp_path.iterdir()) == ['last_checkpoint', 'model']


def test_a_fine_tuning_with_mixup_ends_with_a_folder_without_it(end, files, tmp_path, tiny_vae_folder, monkeypatch):
    cfg, content = small_config('classifier', tiny_vae_folder), torch.load(files['classifier'], weights_only=True)
    cfg.model.data_preprocessor.update(num_classes=10, batch_augments=MIX)
    content['meta']['cfg'] = cfg.pretty_text
    torch.save(content, tmp_path / 'mixed.pth')
    monkeypatch.setitem(files, 'mixed', tmp_path / 'mixed.pth')
    ((level, _),) = end('mixed')
    found = load(tmp_path / 'model').source.cfg['model']
    assert (level, found['type'], found['data_preprocessor'].get('batch_augments')) == ('INFO', 'USPClassifier', None)


def test_why_there_is_no_folder_is_a_line_in_the_log(end, tmp_path, monkeypatch):
    assert end('pretraining', iteration=12)[0][1].endswith('is of iteration 9, the training ended at 12')
    monkeypatch.setattr(
        'usp_mm.apis.end_of_training.from_pretrained', lambda *_, **__: (_ for _ in ()).throw(ValueError('kind'))
    )
    assert end('pretraining') == [('WARNING', 'no model folder of this run: kind')]
    assert sorted(path.name for path in tmp_path.iterdir()) == ['last_checkpoint']
    (tmp_path / 'model').mkdir()
    (tmp_path / 'model' / 'mine.txt').touch()
    assert end('pretraining')[0][1].endswith('holds something else: move it')
    (tmp_path / 'last_checkpoint').unlink()
    assert (tmp_path / 'model' / 'mine.txt').is_file()


def test_a_training_ends_with_its_folder_unless_the_config_says_no(small_world, tool_here, tmp_path):
    config = ROOT / 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
    options = [
        f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}', 'train_cfg.max_epochs=1', 'param_scheduler=None',
        f'train_dataloader.dataset.data_root={small_world.cache("tiny", 64, flip=False)}', 'train_dataloader.batch_size=2',
    ]  # fmt: skip
    for asked in (False, True):
        words = ['--work-dir', tmp_path, '--overwrite', '--cfg-options', *options, f'model_folder={asked}']
        assert tool_here('tools/train.py', config, *words)[0] == 0
        log = max(tmp_path.glob('*/*.log')).read_text()
        assert log.count(' - WARNING - optim_wrapper.optimizer.lr=0.001 is for a batch of 64 ') == 1
        assert (tmp_path / 'model' / 'model.safetensors').is_file() == asked
    assert load(tmp_path / 'model').source.cfg['model']['type'] == 'USP'
