"""A checkpoint says which VAE it was trained with, and every entry point refuses another one."""

import copy
import functools
import shutil

import pytest
import torch
from diffusers import AutoencoderKL
from helpers.checkpoint_files import build, cfg_of
from helpers.small_generation import shrink_generation
from helpers.small_segmentation import shrink_segmentation
from helpers.small_world import load_leaf, train_quickly
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from usp_mm.apis.inference import inferencer
from usp_mm.apis.restoration import load_algorithm
from usp_mm.apis.segmentation import segmentor
from usp_mm.checkpoints import convert
from usp_mm.evaluation.extractors import ClassifierFeatures
from usp_mm.probing.features import load_frozen
from usp_mm.sampling.draw import load_generator
from usp_mm.vaes import build_codec
from usp_mm.vaes.record import compare_vae, read_record, vae_record

PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
CACHED = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
SEGMENT = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'
GENERATE = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py'
TRAIN_VAE = 'configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py'


@pytest.fixture(scope='module')
def other_vae(tmp_path_factory, tiny_vae_folder):
    """The tiny VAE with one number changed."""
    folder = tmp_path_factory.mktemp('other')
    network = AutoencoderKL.from_pretrained(tiny_vae_folder)
    next(network.parameters()).data.view(-1)[0] += 1
    network.save_pretrained(folder)
    return folder


@functools.cache
def weight_hash(folder):
    return build_codec('tiny', path=folder).weight_hash


@pytest.fixture
def said(monkeypatch):
    """What is logged through MMEngine's current logger."""
    lines = []
    for level in ('info', 'warning'):
        monkeypatch.setattr(MMLogger, level, lambda self, line, *_, level=level, **__: lines.append(f'{level}: {line}'))
    return lines


def refusal(ours, other):
    return (
        rf"was trained with VAE 'tiny' \(weights {weight_hash(ours)}\), this run has 'tiny' \(weights {weight_hash(other)}\): "
        r'give its own with vae\.name, vae\.path or .*, or allow another one with allow_other_vae=True'
    )


@pytest.mark.parametrize('path', [PRETRAIN, CACHED, LINEAR, SEGMENT, GENERATE])
def test_every_stage_notes_its_vae(path, small_world, tmp_path):
    """Also one that trains from cached latents without the VAE's weights."""
    shrink = {SEGMENT: shrink_segmentation, GENERATE: shrink_generation}.get(path)
    cfg = load_leaf(path)
    cfg = small_world.shrink(cfg, 64 if path == PRETRAIN else None) if shrink is None else shrink(small_world, cfg)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    cfg.default_hooks.pop('visualization')
    if path == CACHED:
        cfg.model.data_preprocessor.load_vae = False
    runner = train_quickly(cfg, tmp_path)
    assert read_record(runner.message_hub.get_info('last_ckpt')) == dict(
        name='tiny',
        weight_hash=weight_hash(small_world.tiny_vae_folder),
        scale=AutoencoderKL.load_config(small_world.tiny_vae_folder)['scaling_factor'],
        shift=0.0,
    )


def test_a_trained_vae_is_in_the_checkpoint_itself(small_world, tmp_path):
    cfg = small_world.shrink(load_leaf(TRAIN_VAE), 64)
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    train_quickly(cfg, tmp_path)
    assert read_record(tmp_path / 'epoch_1.pth') is None


def test_resume(small_world, other_vae, tmp_path, said):
    cfg = small_world.shrink(load_leaf(PRETRAIN), 64)
    train_quickly(cfg, tmp_path)
    ours = small_world.tiny_vae_folder

    def again(**changes):
        cfg = small_world.shrink(load_leaf(PRETRAIN), 64)
        cfg.train_cfg.max_epochs, cfg.model.data_preprocessor.vae.path = 2, str(other_vae)
        cfg.merge_from_dict(dict(load_from=str(tmp_path / 'epoch_1.pth'), **changes))
        said.clear()
        return train_quickly(cfg, tmp_path / 'again')

    with pytest.raises(ValueError, match=rf"'.*epoch_1\.pth' {refusal(ours, other_vae)}"):
        again(resume=True)
    for changes in (dict(resume=True, allow_other_vae=True), dict()):  # load_from starts another training
        assert again(**changes).epoch == 2
        assert len([line for line in said if line.startswith("warning: '") and 'was trained with VAE' in line]) == 1
    assert read_record(tmp_path / 'again' / 'epoch_2.pth')['weight_hash'] == weight_hash(other_vae)


def test_a_cache_of_another_vae_is_refused_without_the_vae(small_world, tmp_path):
    train_quickly(small_world.shrink(load_leaf(CACHED)), tmp_path)
    content = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)
    content['meta']['vae']['weight_hash'] = '0' * 16
    torch.save(content, tmp_path / 'other.pth')
    cfg = small_world.shrink(load_leaf(CACHED))
    cfg.resume, cfg.load_from, cfg.model.data_preprocessor.load_vae = True, str(tmp_path / 'other.pth'), False
    ours = weight_hash(small_world.tiny_vae_folder)
    with pytest.raises(ValueError, match=rf"VAE 'tiny' \(weights 0{{16}}\), this run has 'tiny' \(weights {ours}\)"):
        train_quickly(cfg, tmp_path / 'again')


def test_caches_of_different_vaes_are_refused_without_the_vae(small_world, tmp_path):
    """Training and validation of one preset, with other weights."""
    cfg = small_world.shrink(load_leaf(CACHED))
    other = tmp_path / 'cache'
    shutil.copytree(cfg.train_dataloader.dataset.data_root, other)
    ours = weight_hash(small_world.tiny_vae_folder)
    for name in ('plan.json', 'manifest.json'):
        (other / name).write_text((other / name).read_text().replace(ours, 'f' * 16))
    cfg.model.data_preprocessor.load_vae = False
    both = [copy.deepcopy(cfg.train_dataloader.dataset) for _ in range(2)]
    both[1].data_root = str(other)
    cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=both)
    with pytest.raises(
        ValueError, match=rf"different VAEs: '.*' \(weights {ours}\), '.*cache' \(weights f{{16}}\): write them"
    ):
        train_quickly(cfg, tmp_path / 'run')


def test_an_encoder_of_another_vae_is_a_warning(small_world, other_vae, tmp_path, said):
    def start(vae, record, **changes):
        cfg = small_world.shrink(load_leaf(LINEAR), 64)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.model.data_preprocessor.vae.path = str(vae)
        content = torch.load(cfg.model.backbone.init_cfg.checkpoint, weights_only=True)
        content['meta'] = {} if record is None else dict(vae=dict(name='tiny', weight_hash=record))
        cfg.model.backbone.init_cfg.checkpoint = str(tmp_path / 'encoder.pth')
        torch.save(content, tmp_path / 'encoder.pth')
        cfg.merge_from_dict(changes)
        said.clear()
        train_quickly(cfg, tmp_path / str(len(changes)))
        return [line for line in said if 'VAE' in line and 'encoder.pth' in line and 'Config' not in line]

    ours = weight_hash(small_world.tiny_vae_folder)
    assert start(small_world.tiny_vae_folder, ours) == []
    (line,) = start(other_vae, ours)
    assert line.startswith('warning: ') and f'weights {ours}' in line and f'weights {weight_hash(other_vae)}' in line
    (again,) = start(other_vae, ours, resume=True)  # finds nothing to resume
    assert again == line
    (line,) = start(small_world.tiny_vae_folder, None)
    assert line.startswith('info: ') and 'does not say which VAE it was trained with' in line


def scaled(folder, tmp_path, **changes):
    """The VAE of a folder with other numbers in its config."""
    other = tmp_path / '-'.join(changes)
    network = AutoencoderKL.from_pretrained(folder)
    network.register_to_config(**changes)
    network.save_pretrained(other)
    return other


@pytest.mark.parametrize('changes', [dict(scaling_factor=0.7), dict(shift_factor=0.1)])
def test_equal_weights_of_another_scale(changes, tiny_vae_folder, tmp_path):
    """The network is loaded or not: the scale stands in the folder's config."""
    ours, other = (
        vae_record(build_codec('tiny', path=path, load_weights=load))
        for path, load in ((tiny_vae_folder, True), (scaled(tiny_vae_folder, tmp_path, **changes), False))
    )
    assert ours != other and other['weight_hash'] is None
    what, number = ('scale', 0.7) if 'scaling_factor' in changes else ('shift', 0.1)
    told = (
        rf"'tiny' \(weights {ours['weight_hash']}, {what} {ours[what]:.7g}\), this run has 'tiny' \(.*, {what} {number}\): give"
    )
    with pytest.raises(ValueError, match=told):
        compare_vae(ours, other, 'a.pth', warn=False)
    assert what in compare_vae(ours, other, 'a.pth', warn=True)
    rounded = dict(ours, **{what: ours[what] * (1 + 3e-7)})
    older = {key: ours[key] for key in ('name', 'weight_hash')}
    for same in (rounded, older, dict(ours, scale=None, shift=None), dict(ours, scale='1')):
        assert compare_vae(same, ours, 'a.pth', warn=False) is None


def test_statistics_of_another_cache():
    def record(mean, std):
        stats = None if mean is None else dict(latent_mean=[mean] * 32, latent_std=[1.0] * 31 + [std])
        return vae_record(build_codec('va-f16d32', stats=stats, load_weights=False))

    ours = record(0.1, 4.0)
    assert ours['scale'] == [1.0] * 31 + [0.25] and len(ours['shift']) == 32
    assert record(None, None) == dict(name='va-f16d32', weight_hash=None, scale=None, shift=None)
    for same in (record(0.1, 4.0), record(0.1 + 1e-8, 4.0), record(None, None)):
        assert compare_vae(same, ours, 'a.pth', warn=False) is None
    with pytest.raises(
        ValueError, match=r'loaded, scale 0\.5 in channel 31\), this .* scale 0\.25 in channel 31\): .*vae\.stats'
    ):
        compare_vae(record(0.1, 2.0), ours, 'a.pth', warn=False)
    with pytest.raises(ValueError, match=r'loaded, shift 0\.2 in channel 0\), this .* shift 0\.1 in channel 0\)'):
        compare_vae(record(0.2, 4.0), ours, 'a.pth', warn=False)
    with pytest.raises(ValueError, match=r'scale of 2 channels\), .* scale of 32 channels\)'):
        compare_vae(dict(ours, scale=[1.0, 2.0]), ours, 'a.pth', warn=False)


def test_a_resume_and_a_probe_refuse_another_scale(small_world, tmp_path):
    cfg = small_world.shrink(load_leaf(PRETRAIN), 64)
    train_quickly(cfg, tmp_path)
    cfg = small_world.shrink(load_leaf(PRETRAIN), 64)
    other = scaled(small_world.tiny_vae_folder, tmp_path, scaling_factor=0.7)
    cfg.train_cfg.max_epochs, cfg.model.data_preprocessor.vae.path = 2, str(other)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'epoch_1.pth')
    with pytest.raises(ValueError, match=r"this run has 'tiny' \(weights \w+, scale 0\.7\)"):
        train_quickly(cfg, tmp_path / 'again')
    with pytest.raises(ValueError, match=r"this run has 'tiny' \(weights \w+, scale 0\.7\)"):
        load_frozen(cfg, tmp_path / 'epoch_1.pth', device='cpu')


KINDS = {
    'tools/sample.py': ('dit', lambda cfg, path: load_generator(cfg, path, 'cpu')),
    'tools/reconstruct.py': ('usp-pretrain', lambda cfg, path: load_algorithm(cfg, path, 'cpu')),
    'tools/infer.py': ('timm', lambda cfg, path: inferencer(cfg, path, device='cpu')),
    'tools/knn.py': ('usp-pretrain', lambda cfg, path: load_frozen(cfg, path, device='cpu')),
}


@pytest.mark.parametrize('entry', KINDS)
def test_entry_points(entry, tiny_vae_folder, other_vae, tmp_path, said):
    kind, load = KINDS[entry]
    path = tmp_path / 'trained.pth'
    record = dict(name='tiny', weight_hash=weight_hash(tiny_vae_folder))
    torch.save(dict(state_dict=build(kind).state_dict(), meta=dict(vae=record)), path)
    images = dict(type='ImageFolder', data_root='', pipeline=[dict(type='LoadImage'), dict(type='PackInputs')])
    cfg = Config(dict(model=cfg_of(kind), test_dataloader=dict(dataset=images)))
    cfg.model.data_preprocessor = dict(type='LatentDataPreprocessor', vae=dict(name='tiny', path=str(tiny_vae_folder)))
    load(cfg, path)
    assert not any('was trained with VAE' in line for line in said)
    cfg.model.data_preprocessor.vae.path = str(other_vae)
    with pytest.raises(ValueError, match=refusal(tiny_vae_folder, other_vae)):
        load(cfg, path)
    cfg.allow_other_vae = True
    load(cfg, path)
    assert sum('was trained with VAE' in line for line in said) == 1
    torch.save(dict(state_dict=build(kind).state_dict()), path)  # of an older version
    load(cfg, path)
    assert sum('does not say which VAE it was trained with' in line for line in said) == 1


def test_evaluate_and_the_latents_that_a_probe_reads(tiny_vae_folder, other_vae, tmp_path):
    path, record = tmp_path / 'trained.pth', dict(name='tiny', weight_hash=weight_hash(tiny_vae_folder))
    torch.save(dict(state_dict=build('timm').state_dict(), meta=dict(vae=record)), path)
    cfg = Config(dict(model=cfg_of('timm')))
    cfg.model.data_preprocessor = dict(type='LatentDataPreprocessor', vae=dict(name='tiny', path=str(other_vae)))
    cfg.dump(tmp_path / 'classifier.py')
    with pytest.raises(ValueError, match=refusal(tiny_vae_folder, other_vae)):
        ClassifierFeatures(str(tmp_path / 'classifier.py'), path)
    cfg.allow_other_vae = True
    cfg.dump(tmp_path / 'classifier.py')
    ClassifierFeatures(str(tmp_path / 'classifier.py'), path)
    cfg.allow_other_vae = False
    load_frozen(cfg, path, load_vae=False, vae_hash=record['weight_hash'], device='cpu')
    with pytest.raises(ValueError, match=r"this run has 'tiny' \(weights ffff\)"):
        load_frozen(cfg, path, load_vae=False, vae_hash='ffff', device='cpu')


def test_a_segmentor_and_a_test(small_world, other_vae, tmp_path):
    """tools/infer.py and tools/test.py."""
    cfg = shrink_segmentation(small_world, load_leaf(SEGMENT))
    train_quickly(cfg, tmp_path)
    cfg.model.backbone.vae.path = str(other_vae)
    cfg.dump(tmp_path / 'other.py')
    told = refusal(small_world.tiny_vae_folder, other_vae)
    with pytest.raises(ValueError, match=told):
        segmentor(tmp_path / 'other.py', tmp_path / 'iter_1.pth', 'cpu')
    segmentor(tmp_path / 'other.py', tmp_path / 'iter_1.pth', 'cpu', dict(allow_other_vae=True))
    cfg.load_from, cfg.work_dir, cfg.experiment_name = str(tmp_path / 'iter_1.pth'), str(tmp_path), 'other'
    with pytest.raises(ValueError, match=told):
        Runner.from_cfg(cfg).test()


def test_the_converter_passes_it_on(tmp_path):
    record = dict(name='sd-f8d4', weight_hash='0123456789abcdef', scale=0.18215, shift=0.0)
    torch.save(dict(state_dict=build('dit').state_dict(), meta=dict(vae=record)), tmp_path / 'ours.pth')
    convert(tmp_path / 'ours.pth', tmp_path / 'again.pth')
    assert read_record(tmp_path / 'again.pth') == record
    note = "it does not say that it was trained with VAE 'sd-f8d4' (weights 0123456789abcdef)"
    for out, to in (('ours.safetensors', 'usp_mm'), ('official.pth', 'official')):
        assert note in convert(tmp_path / 'ours.pth', tmp_path / out, to).notes
