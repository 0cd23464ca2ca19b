"""tools/train.py, test.py and dist_train.sh as a user runs them."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from helpers.small_world import ROOT, run_launcher, run_tool

BASE = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
CACHED = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'
LINEAR = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'
SHAPE = ['model.backbone.arch=tiny', 'model.backbone.img_size=64']
RESIZE = ['train_dataloader.dataset.pipeline.2.scale=64']
WARMUP = ['param_scheduler.0.end=1', 'param_scheduler.1.begin=1']
LOADER = ['train_dataloader.num_workers=2', 'default_hooks.logger.interval=1', 'default_hooks.restoration.interval=100']


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '1')


@pytest.fixture
def online(demo_data, tiny_vae_folder):
    """Options that run the base config on 40 digits, online."""
    vae = ['model.data_preprocessor.vae.name=tiny', f'model.data_preprocessor.vae.path={tiny_vae_folder}']
    return [*SHAPE, *RESIZE, *LOADER, *WARMUP, *vae, f'train_dataloader.dataset.data_root={demo_data}/imagenet']


def losses(work_dir):
    """Loss of each logged iteration of a work folder, over all its runs, the later run's where both have it."""
    found = {}
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        for record in map(json.loads, path.read_text().splitlines()):
            if 'loss' in record:
                found[record['step']] = record['loss']
    return found


def weights(path):
    return torch.load(path, map_location='cpu', weights_only=True)['state_dict']


@pytest.mark.slow
def test_a_run_killed_and_resumed_ends_as_an_uninterrupted_one(online, tmp_path):
    options = [*online, 'train_dataloader.batch_size=8', 'train_cfg.max_epochs=4', 'default_hooks.restoration.interval=2']
    whole = run_tool('tools/train.py', BASE, '--work-dir', tmp_path / 'whole', '--cfg-options', *options)
    assert whole.returncode == 0, whole.stderr

    command = [sys.executable, 'tools/train.py', BASE, '--work-dir', tmp_path / 'killed']
    process = subprocess.Popen(
        [*map(str, command), '--cfg-options', *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not (tmp_path / 'killed' / 'epoch_2.pth').exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / 'killed' / 'epoch_4.pth').exists()

    resumed = run_tool('tools/train.py', BASE, '--work-dir', tmp_path / 'killed', '--resume', '--cfg-options', *options)
    assert resumed.returncode == 0, resumed.stderr
    assert losses(tmp_path / 'killed') == losses(tmp_path / 'whole') and len(losses(tmp_path / 'whole')) == 20

    final, other = (torch.load(tmp_path / run / 'epoch_4.pth', weights_only=True) for run in ('whole', 'killed'))
    for name, value in final['state_dict'].items():
        assert torch.equal(value, other['state_dict'][name]), name
    assert {name.split('.')[0] for name in final['state_dict']} == {'backbone', 'neck'}  # no VAE
    trained = sum('pos_embed' not in name for name in final['state_dict'])
    assert len(final['optimizer']['state']) == trained
    assert len(list((tmp_path / 'whole').glob('*/vis_data/vis_image/restoration_*.png'))) == 2
    assert list((tmp_path / 'whole').glob('*/vis_data/events.out.tfevents.*'))


@pytest.mark.slow
def test_a_cached_run_learns_the_probe_loads_it_and_test_scores_it(small_world, demo_data, tiny_vae_folder, tmp_path):
    cache = tmp_path / 'cache'
    vae = ['--vae', 'tiny', '--vae-path', tiny_vae_folder, '--img-size', 64]
    written = run_tool('tools/cache_latents.py', 'write', demo_data / 'imagenet' / 'train', cache, *vae, '--workers', 0)
    assert written.returncode == 0, written.stderr
    vae = ['model.data_preprocessor.vae.name=tiny', f'model.data_preprocessor.vae.path={tiny_vae_folder}']
    options = [*SHAPE, *LOADER, *WARMUP, *vae, f'train_dataloader.dataset.data_root={cache}', 'train_dataloader.batch_size=20']
    options += ['train_cfg.max_epochs=30', 'optim_wrapper.optimizer.lr=0.02']
    done = run_tool('tools/train.py', CACHED, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    curve = losses(tmp_path / 'run')
    assert curve[60] < 0.9 * curve[1]

    data = [f'{split}_dataloader.dataset.data_root={demo_data}/imagenet' for split in ('train', 'val', 'test')]
    sizes = [
        'train_dataloader.batch_size=20',
        'val_dataloader.batch_size=20',
        'test_dataloader.batch_size=20',
        'model.head.num_classes=10',
    ]
    pipeline = [
        f'{split}_dataloader.dataset.pipeline.{key}' for split in ('val', 'test') for key in ('1.scale=64', '2.crop_size=64')
    ]
    crop = 'train_dataloader.dataset.pipeline.3.size=64'
    options = [*SHAPE, crop, *WARMUP, *vae, *data, *sizes, *pipeline]
    options += ['model.backbone.frozen_stages=4', 'train_cfg.max_epochs=2']
    options += ['train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False']
    probe = run_tool(
        'tools/train.py', LINEAR, '--work-dir', tmp_path / 'probe', '--cfg-options', *options,
        f'model.backbone.init_cfg.checkpoint={tmp_path}/run/epoch_30.pth',
    )  # fmt: skip
    assert probe.returncode == 0, probe.stderr
    pretrained, probed = weights(tmp_path / 'run' / 'epoch_30.pth'), weights(tmp_path / 'probe' / 'epoch_2.pth')
    for name, value in probed.items():
        if name.startswith('backbone.'):
            assert torch.equal(value, pretrained[name]), name

    out = tmp_path / 'metrics.json'
    command = ['tools/test.py', LINEAR, tmp_path / 'probe' / 'epoch_2.pth', '--work-dir', tmp_path / 'test', '--out', out]
    tested = run_tool(*command, '--cfg-options', *options)
    assert tested.returncode == 0, tested.stderr
    logged = [json.loads(line) for line in next((tmp_path / 'probe').glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(logged[-1]['accuracy/top1'])

    other = run_tool(
        'tools/test.py', LINEAR, tmp_path / 'run' / 'epoch_30.pth', '--work-dir', tmp_path / 'test', '--cfg-options', *options
    )
    assert other.returncode == 1
    assert re.search(r'error: the checkpoint does not fit the config: \d+ missing \(neck', other.stderr)


@pytest.mark.slow
@pytest.mark.parametrize('compiled', [[], ['model.compile=blocks']])
def test_two_processes_follow_one_with_the_doubled_batch(compiled, online, tmp_path):
    """20 steps, losses to 1e-5: the same samples, crops, flips, masks and mean gradients."""
    common = [*online, 'train_cfg.max_epochs=4', 'default_hooks.checkpoint.interval=4', 'optim_wrapper.type=OptimWrapper']
    one = run_tool(
        'tools/train.py', BASE, '--work-dir', tmp_path / 'one', '--cfg-options', *common, 'train_dataloader.batch_size=8'
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    command = ['tools/dist_train.sh', BASE, 2, '--work-dir', tmp_path / 'two', '--cfg-options', *common]
    two = run_launcher(*command, 'train_dataloader.batch_size=4', *compiled)
    assert two.returncode == 0, two.stderr
    single, double = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(single) == 20 and double == pytest.approx(single, abs=1e-5)


@pytest.mark.slow
def test_probe_statistics_are_averaged_over_processes(small_world, tmp_path):
    """The mean of two processes' running means is one process's, and dist_test.sh scores like test.py."""
    linear = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
    vae = f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}'
    cache = small_world.cache('tiny', 64, flip=False)
    data = [f'{split}_dataloader.dataset.data_root={cache}' for split in ('train', 'val', 'test')]
    short = ['train_cfg.max_epochs=2', 'param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'model.head.num_classes=2']
    options = [vae, *data, *short, 'model.backbone.init_cfg=None']
    one = run_tool(
        'tools/train.py', linear, '--work-dir', tmp_path / 'one', '--cfg-options', *options, 'train_dataloader.batch_size=4'
    )  # fmt: skip
    assert one.returncode == 0, one.stderr
    command = ['tools/dist_train.sh', linear, 2, '--work-dir', tmp_path / 'two']
    two = run_launcher(*command, '--cfg-options', *options, 'train_dataloader.batch_size=2')
    assert two.returncode == 0, two.stderr
    first, second = weights(tmp_path / 'one' / 'epoch_2.pth'), weights(tmp_path / 'two' / 'epoch_2.pth')
    torch.testing.assert_close(second['neck.bn.running_mean'], first['neck.bn.running_mean'], rtol=0, atol=1e-5)

    checkpoint, out = tmp_path / 'one' / 'epoch_2.pth', tmp_path / 'metrics.json'
    command = ['tools/dist_test.sh', linear, checkpoint, 2, '--work-dir', tmp_path / 'test', '--out', out]
    tested = run_launcher(*command, '--cfg-options', *options)
    assert tested.returncode == 0, tested.stderr
    logged = [json.loads(line) for line in next((tmp_path / 'one').glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert json.loads(out.read_text())['accuracy/top1'] == pytest.approx(logged[-1]['accuracy/top1'])


@pytest.mark.slow
def test_fine_tuning_on_two_processes_follows_one(small_world, tmp_path):
    """Weights to 1e-5 but for the qkv biases (the keys' gradient is pure rounding), and the same accuracy."""
    cache, finetune = small_world.cache('tiny', 64, flip=False), 'configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py'
    options = [f'{split}_dataloader.dataset.data_root={cache}' for split in ('train', 'val', 'test')]
    options += [f'model.data_preprocessor.vae.path={small_world.tiny_vae_folder}', 'model.backbone.init_cfg=None']
    options += ['train_cfg.max_epochs=3', 'model.head.num_classes=2', 'default_hooks.checkpoint.interval=3']
    command = [finetune, '--work-dir', tmp_path / 'one', '--cfg-options', *options, 'train_dataloader.batch_size=4']
    one = run_tool('tools/train.py', *command)
    assert one.returncode == 0, one.stderr
    command = [finetune, 2, '--work-dir', tmp_path / 'two', '--cfg-options', *options, 'train_dataloader.batch_size=2']
    two = run_launcher('tools/dist_train.sh', *command)
    assert two.returncode == 0, two.stderr
    first, second = (weights(tmp_path / name / 'epoch_3.pth') for name in ('one', 'two'))
    for name, value in first.items():
        if not name.endswith('qkv.bias'):
            torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5, msg=name)
    scores = {name: accuracies(tmp_path / name) for name in ('one', 'two')}
    assert scores['two'] == scores['one'] and len(scores['one']) == 3


def accuracies(work_dir):
    records = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    return [record['accuracy/top1'] for record in map(json.loads, records) if 'accuracy/top1' in record]


@pytest.mark.slow
@pytest.mark.parametrize(
    ('option', 'message'),
    [
        ('train_dataloader.dataset.data_root={tmp}/nowhere', r"image folder '.*/nowhere/train' of train_dataloader does"),
        ('train_dataloader.dataset.data_root={tmp}/empty_class', r"no image in class folder '7'"),
        ('train_dataloader.dataset.data_root={tmp}/truncated', r"cannot decode image '.*/0/broken.jpg'"),
        ('model.backbone.drop_pth_rate=0.1', r"unknown key 'drop_pth_rate' in model.backbone.*did you mean 'drop_path_rate'"),
        ('param_scheduler.1.begin=9', r'max_epochs=4 ends before param_scheduler.1 begins, at 9'),
        ('model.data_preprocessor.vae.path={tmp}/no_vae', r'no_vae'),
        ('model.data_preprocessor.vae=sd-f8d4', r"'sd-f8d4'.*0.18215"),
    ],
)
def test_bad_input_is_one_clear_line(option, message, online, small_world, tmp_path):
    (tmp_path / 'empty_class' / 'train').mkdir(parents=True)
    for name in ('0', '1', '7'):
        (tmp_path / 'empty_class' / 'train' / name).mkdir()
    broken = tmp_path / 'truncated' / 'train' / '0'
    broken.mkdir(parents=True)
    from PIL import Image

    Image.new('RGB', (64, 64), (200, 30, 30)).save(broken / 'broken.jpg')
    (broken / 'broken.jpg').write_bytes((broken / 'broken.jpg').read_bytes()[:-80])
    for name in ('0', '1'):
        image = next((small_world.images / 'train' / '0').iterdir())
        (tmp_path / 'empty_class' / 'train' / name / image.name).write_bytes(image.read_bytes())
    options = [*online, 'train_cfg.max_epochs=4', 'train_dataloader.batch_size=1', option.format(tmp=tmp_path)]
    failed = run_tool('tools/train.py', BASE, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    assert failed.returncode == 1
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith('error: ')
    assert re.search(message, last)
    assert 'Traceback' not in failed.stderr


@pytest.mark.slow
def test_a_cache_of_another_vae_is_refused(small_world, demo_data, tiny_vae_folder, tmp_path):
    from usp_mm.vaes.tiny import make_tiny_vae, save_vae

    save_vae(make_tiny_vae(seed=1, scaling_factor=0.5), tmp_path / 'other')
    options = [*SHAPE, *LOADER, 'model.data_preprocessor.vae.name=tiny', f'model.data_preprocessor.vae.path={tmp_path}/other']
    options += [f'train_dataloader.dataset.data_root={small_world.cache("tiny", 64)}', 'train_dataloader.batch_size=4']
    failed = run_tool('tools/train.py', CACHED, '--work-dir', tmp_path / 'run', '--cfg-options', *options)
    last = failed.stderr.strip().splitlines()[-1]
    assert failed.returncode == 1
    assert re.search(r"error: latent cache '.*' was written with vae_weight_hash='\w{16}', the model has '\w{16}'", last)
