"""Odd paths and arguments, as users give them to the tools."""

import shutil

import pytest
from helpers.run_logs import write_curve
from helpers.small_world import ROOT, run_launcher, run_tool

from usp_mm.config.values import parse_value, quote_value
from usp_mm.own_pictures import stages

DIGITS = 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py'
LINEAR = 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
ODD = "it's w,ird=é%s{a}[b] d"


@pytest.fixture
def call(tool_here):
    """What a tool prints."""
    return lambda tool, *words: tool_here(tool, *words)[1]


@pytest.fixture
def odd(small_world, tmp_path):
    """A folder of an odd name with a config, and the options that run it from a cache and a VAE there."""
    folder = tmp_path / ODD
    shutil.copytree(small_world.cache('tiny', 64), folder / 'cache')
    shutil.copytree(small_world.tiny_vae_folder, folder / 'vae')
    text = (ROOT / DIGITS).read_text().replace("'../_base_", f"'{ROOT}/configs/_base_")
    (folder / 'my digits,b=1é.py').write_text(text)
    schedule = ['param_scheduler.0.end=1', 'param_scheduler.1.begin=1', 'train_cfg.max_epochs=2']
    paths = {'model.data_preprocessor.vae.path': folder / 'vae', 'train_dataloader.dataset.data_root': folder / 'cache'}
    options = [f'{key}={quote_value(path)}' for key, path in paths.items()]
    return folder, folder / 'my digits,b=1é.py', [*options, 'train_dataloader.batch_size=4', *schedule]


@pytest.mark.slow
def test_paths_with_spaces_commas_and_equals_signs(odd, small_world, call):
    folder, config, options = odd
    done = run_launcher('tools/dist_train.sh', config, 1, '--work-dir', folder / 'run', '--cfg-options', *options)
    assert done.returncode == 0, done.stderr
    checkpoint = folder / 'run' / 'epoch_2.pth'
    assert (folder / 'run' / 'last_checkpoint').read_text() == checkpoint.name
    dumped = folder / 'run' / config.name
    pictures = ['--images', small_world.images / 'val', '--num', 2, '--out', folder / 'new' / 'a b.png']
    assert f'{folder}/new/a b.png: 2 rows' in call('tools/reconstruct.py', dumped, checkpoint, *pictures)
    resumed = run_tool('tools/train.py', dumped, '--work-dir', folder / 'run', '--resume', '--cfg-options', *options)
    assert resumed.returncode == 0, resumed.stderr


def test_the_stages_of_a_pipeline_quote(tmp_path):
    work_dir = tmp_path / ODD
    found = dict(
        word.split('=', 1) for word in [*stages.vae_options(work_dir), *stages.latent_options(work_dir, 'train', 'val')]
    )
    assert {key: parse_value(value) for key, value in found.items()} == {
        'model.data_preprocessor.vae.path': str(work_dir / 'vae'),
        'train_dataloader.dataset.data_root': str(work_dir / 'latents' / 'train'),
        'val_dataloader.dataset.data_root': str(work_dir / 'latents' / 'val'),
        'test_dataloader.dataset.data_root': str(work_dir / 'latents' / 'val'),
    }


def test_runs_in_folders_with_commas_and_equals_signs(tmp_path, call):
    folder = tmp_path / 'a,b=c d'
    for name in ('s0', 's1', 'u0'):
        write_curve(folder / name, {100: 40.0, 200: 30.0})
    arms = [f'scratch={folder}/s0,{folder}/s1', f'{folder}/u0']
    assert 'Feature/FD, lower is better' in call('tools/plot_convergence.py', *arms, '--out', tmp_path / 'c.png')


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--num', 0], 'error: --num 0 must be 1 or more'),
        (['--num', -1], 'error: --num -1 must be 1 or more'),
        (['--out', 'r.jpgx'], "error: --out 'r.jpgx' must end in"),
        (['--out', 'tools'], 'it is a folder'),
        (['--out', 'README.md/r.png'], "README.md' is a file, not a folder"),
        (['--tensorboard', 'README.md'], "README.md' is a file, not a folder"),
    ],
)
def test_reconstruct_checks_first(words, message, call):
    assert message in call('tools/reconstruct.py', DIGITS, 'none.pth', '--images', 'none', *words)


@pytest.mark.parametrize(
    ('tool', 'words', 'message'),
    [
        ('tools/test.py', [LINEAR, 'none.pth', '--out', 'm.jsonx'], "error: --out 'm.jsonx' must end in .json or .yaml"),
        ('tools/infer.py', ['embed', LINEAR, 'none.pth', 'none', '--out', 'README.md'], 'is a file, not a folder'),
        ('tools/robustness.py', [LINEAR, 'none.pth', '--out', 'README.md/a'], 'is a file, not a folder'),
        ('tools/knn.py', [LINEAR, 'none.pth', '--data', 'none', '--work-dir', 'README.md'], 'is a file, not a folder'),
        ('tools/probe_layers.py', [LINEAR, 'none.pth', '--data', 'none', '--work-dir', 'README.md'], 'is a file, not a'),
        ('tools/plot_convergence.py', ['none', '--out', 'README.md/a.png'], 'is a file, not a folder'),
        ('tools/plot_convergence.py', ['none', '--json', 'tools'], '--json: cannot write'),
        ('tools/cost_table.py', ['none', '--json', 'tools'], '--json: cannot write'),
        ('tools/evaluate.py', ['none', '--ref', 'none', '--json', 'none/a.json'], "folder 'none' does not exist"),
        ('tools/analysis/get_flops.py', [DIGITS, '--json', 'tools'], '--json: cannot write'),
    ],
)
def test_every_tool_checks_what_it_writes_first(tool, words, message, call):
    assert message in call(tool, *words)


def test_a_config_without_a_test(tmp_path, call):
    (tmp_path / 'a.pth').touch()
    assert 'has no test: set test_dataloader, test_cfg and' in call('tools/test.py', DIGITS, tmp_path / 'a.pth', '--amp')


def test_the_output_of_likelihood_is_checked_before_anything_is_read(tool_here, tmp_path):
    words = ('tools/likelihood.py', 'no.py', 'no.pth', '--data', 'none', '--out')
    for out, told in (
        (tmp_path / 'found.txt', f"--out '{tmp_path}/found.txt' must end in .json"),
        (tmp_path, f"--out: cannot write '{tmp_path}': it is a folder"),
        (tmp_path / 'none' / 'found.json', f"folder '{tmp_path}/none' does not exist, create it first"),
    ):
        code, printed = tool_here(*words, out)
        assert code == 1 and told in printed
