"""Commands that take a model folder in place of CONFIG CHECKPOINT."""

import inspect
import json
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from helpers.trained_files import DIGITS, load, picture, small_config
from PIL import Image

from usp_mm.apis import Encoder, Generator
from usp_mm.apis.folder_argument import take_folder
from usp_mm.cli import evaluate, likelihood, reconstruct, sample
from usp_mm.evaluation.extractors import ClassifierFeatures
from usp_mm.fileio.weights import read_trained


def test_sampling_by_name_from_a_folder(folders, tool_here, tmp_path):
    words = ['--classes', 'three', '7:1', '--per-class', '2', '--steps', '2', '--guidance', '2', '--seed', '2']
    code, printed = tool_here('tools/sample.py', folders['generator'], *words, '--grid', tmp_path / 'grid.png')
    assert code == 0 and 'row 1: 2 of class 3 (three)' in printed and 'row 2: 1 of class 7 (seven)' in printed
    found = load(folders['generator']).sample(['three', '7:1'], 2, guidance=2, steps=2, seed=2)
    grid = np.asarray(Image.open(tmp_path / 'grid.png'))
    first = np.asarray(found[0])
    assert any(
        np.array_equal(grid[y : y + 64, x : x + 64], first)
        for y in range(grid.shape[0] - 63)
        for x in range(grid.shape[1] - 63)
    )


def test_restoring_and_classifying_from_a_folder(folders, files, tool_here, tmp_path):
    words = ['--images', files['picture'], '--out', tmp_path / 'restored.png']
    assert tool_here('tools/reconstruct.py', folders['pretraining'], *words)[0] == 0
    assert (tmp_path / 'restored.png').is_file()
    code, printed = tool_here(
        'tools/infer.py', 'classify', folders['classifier'], files['picture'], files['other'], '--out', tmp_path
    )
    assert code == 0 and '2 images' in printed


def test_evaluating_a_folder_gives_the_metrics_of_its_config_and_checkpoint(
    folders, files, tiny_vae_folder, tool_here, tmp_path
):
    config = tmp_path / 'config.py'
    small_config('classifier', tiny_vae_folder).dump(config)
    for i in range(10):
        (tmp_path / 'digits' / str(i)).mkdir(parents=True)
        picture(tmp_path / 'digits' / str(i) / 'one.png', i)
    words = ['--vae', 'tiny', '--vae-path', tiny_vae_folder, '--img-size', 64, '--no-flip', '--workers', 0]
    assert tool_here('tools/cache_latents.py', 'write', tmp_path / 'digits', tmp_path / 'latents', *words)[0] == 0
    options = [f'test_dataloader.dataset.data_root={tmp_path / "latents"}', 'test_evaluator.topk=(1,3)']
    options += [f'test_dataloader.dataset.metainfo.classes=[{",".join(DIGITS)}]']
    metrics = {}
    for name, words in dict(folder=[folders['classifier']], files=[config, files['classifier']]).items():
        out, work = tmp_path / f'{name}.json', tmp_path / name
        code, printed = tool_here('tools/test.py', *words, '--out', out, '--work-dir', work, '--cfg-options', *options)
        assert code == 0, printed
        metrics[name] = json.loads(out.read_text())
    assert metrics['folder'] == metrics['files'] and 0 < metrics['folder']['accuracy/top3'] <= 100
    args = Namespace(config=str(folders['classifier']), checkpoint=None, launcher='none', work_dir=None)
    take_folder(args)
    assert args.work_dir == 'work_dirs/classifier'


def test_samples_are_scored_and_a_model_is_told_what_does_it(folders, files, tool_here, tmp_path):
    for model in (folders['generator'], files['classifier']):
        code, printed = tool_here('tools/evaluate.py', model, '--ref', tmp_path)
        assert code != 0 and f"'{model}' is a model, and samples are scored: draw them with `usp sample {model}" in str(printed)


def test_a_folders_classifier_gives_the_features_of_its_config_and_checkpoint(folders, files, tiny_vae_folder, tmp_path):
    config = tmp_path / 'config.py'
    small_config('classifier', tiny_vae_folder).dump(config)
    found = [
        evaluate.chosen_extractor(Namespace(classifier=words, classifier_size=64))
        for words in ([str(folders['classifier'])], [str(config), str(files['classifier'])])
    ]
    assert found[0]['checkpoint'] == str(folders['classifier'] / 'model.safetensors')
    images = torch.from_numpy(np.asarray(Image.open(files['picture']))).permute(2, 0, 1)[None]
    features = [ClassifierFeatures(**{key: one[key] for key in one if key != 'type'})(images) for one in found]
    assert features[0].shape == (1, 32) and torch.equal(*features)


def test_a_folder_passes_on_class_names_and_vae(folders, files):
    found, trained = read_trained(folders['generator'] / 'model.safetensors'), read_trained(files['generator'])
    assert list(found.classes) == list(trained.classes)
    assert found.meta['vae']['weight_hash'] == trained.meta['vae']['weight_hash']


def test_what_is_no_folder_or_too_much_is_refused(folders, files, tmp_path):
    folder = str(folders['pretraining'])
    with pytest.raises(ValueError, match=r'which holds its own weights: leave .* out'):
        take_folder(Namespace(config=folder, checkpoint=str(files['pretraining'])))
    with pytest.raises(ValueError, match=r'no model folder: give CONFIG and CHECKPOINT'):
        take_folder(Namespace(config='sit/sit-tiny-p2_1xb64-2k_digits.py', checkpoint=None))
    copy = tmp_path / 'copy'
    shutil.copytree(folder, copy)
    (copy / 'config.py').write_text('import os\nmodel = dict(type="USP")\n')
    with pytest.raises(ValueError, match=r"'import os' is code"):
        take_folder(Namespace(config=str(copy), checkpoint=None))
    (copy / 'model.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'it has no model\.safetensors'):
        take_folder(Namespace(config=str(copy), checkpoint=None))


def test_settings_have_one_name_in_commands_and_in_python(monkeypatch):
    def options(command):
        found = {}
        monkeypatch.setattr('argparse.ArgumentParser.parse_args', lambda parser: found.update(parser._option_string_actions))
        command.parse_args()
        return found.keys()

    python = inspect.signature(Generator.sample).parameters.keys()
    for name in ('classes', 'per_class', 'guidance', 'steps', 'seed', 'batch_size'):
        assert name in python and f'--{name.replace("_", "-")}' in options(sample)
    assert {'--steps', '--seed', '--batch-size'} <= options(likelihood)
    assert 'seed' in inspect.signature(Encoder.restore).parameters and '--seed' in options(reconstruct)
