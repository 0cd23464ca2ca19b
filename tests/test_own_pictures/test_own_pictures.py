"""`usp train FOLDER`, from a dozen pictures to samples, with an interruption between its stages."""

import contextlib
import json
import shlex
import sys

import numpy as np
import pytest
import torch
from helpers.small_world import run_tool
from mmengine.registry import DefaultScope
from PIL import Image

import usp_mm
from usp_mm.analysis.run_log import read_run
from usp_mm.cli import main as usp
from usp_mm.fileio.locks import locked
from usp_mm.own_pictures.plan import Machine, choose_plan
from usp_mm.own_pictures.record import Record
from usp_mm.own_pictures.run import _pictures
from usp_mm.own_pictures.scan import scan_pictures
from usp_mm.own_pictures.stages import Stages
from usp_mm.own_pictures.vae_choice import find_vae

TITLES = 32  # pixels, of column titles in two lines
SHORT = ['--vae-steps', '2', '--epochs', '2', '--steps', '2', '--img-size', '32']


@pytest.fixture(scope='module')
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """A folder with twelve noisy pictures of 32 pixels in two classes, 'photos'."""
    folder = tmp_path_factory.mktemp('own')
    for i in range(12):
        path = folder / 'photos' / ('dark' if i % 2 else 'light') / f'{i}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.RandomState(i).randint(0, 128, (32, 40, 3)) + (0 if i % 2 else 127)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


class Shell:
    """Runs `usp …` in this process, and so the stages' commands; `commands` are those that ran, by stage."""

    def __init__(self, patch, folder):
        self.folder, self.commands, self.interrupt_at = folder, {}, None
        patch.setattr(Stages, '_follow', self._follow)
        patch.chdir(folder)
        self.patch = patch

    def _follow(self, commands, env, running, start):
        for name, (program, *words) in commands.items():
            if name == self.interrupt_at:
                raise KeyboardInterrupt
            assert program == 'usp'
            self.commands[name] = list(map(str, words))
            code, text = self.run(*words)
            assert code == 0, text

    def run(self, *words):
        """Exit code, and what was printed in this process to stdout and stderr."""
        before = sys.argv
        log = self.folder / 'printed.txt'
        with log.open('a+') as file:
            start = file.tell()
            sys.argv = ['usp', *map(str, words)]
            with contextlib.redirect_stdout(file), contextlib.redirect_stderr(file), pytest.raises(SystemExit) as end:
                usp.main()
            file.flush()
            sys.argv = before
            DefaultScope._instance_dict.clear()
            file.seek(start)
            return end.value.code or 0, file.read()


@pytest.fixture(scope='module')
def shell(patch, world):
    return Shell(patch, world)


@pytest.fixture(scope='module')
def finished(shell, world, patch):
    """A training that was interrupted before its third part, and the same command again."""
    shell.interrupt_at = 'pretraining'
    code, text = shell.run('train', 'photos', *SHORT)
    first = (code, text, dict(shell.commands))
    shell.interrupt_at, shell.commands = None, {}
    code, text = shell.run('train', 'photos', *SHORT)
    assert code == 0, text
    return first, text


@pytest.mark.slow
def test_an_interruption_ends_in_one_line_and_the_next_call_goes_on(finished, shell):
    (code, text, commands), _ = finished
    assert code == 130 and list(commands) == ['VAE', 'cache train', 'cache val']
    assert (
        text.splitlines()[-1] == f'interrupted: the same command goes on where it stopped: usp train photos {shlex.join(SHORT)}'
    )
    assert list(shell.commands) == [
        'pretraining', 'restoration', 'encoder folder', 'linear probe', 'nearest neighbours', 'generator', 'samples',
        'generator folder',
    ]  # fmt: skip


@pytest.mark.slow
def test_the_pictures_the_models_and_the_summary(finished, world):
    out = world / 'work_dirs' / 'photos'
    summary = json.loads((out / 'summary.json').read_text())
    assert list(summary)[-7:] == ['pictures', 'vae', 'cache', 'pretrain', 'probe', 'generate', 'curves']
    assert summary['pictures'] == dict(classes=['dark', 'light'], train=10, val=2, broken={})
    assert summary['plan']['img_size'] == 32 and summary['plan']['batch_size'] == 8
    numbers = json.loads((out / 'vae' / 'training.json').read_text())
    assert summary['vae']['psnr'] == numbers['psnr'] and (numbers['held_out'], numbers['steps'], numbers['seed']) == (1, 2, 0)
    assert (
        f'{numbers["psnr"]:.1f} dB on held-out pictures (1)' in finished[0][1]
        and f'VAE {numbers["psnr"]:.1f} dB' in finished[1]
    )
    assert summary['probe']['chance'] == 50 and {0, 50, 100} >= {summary['probe']['linear'], summary['probe']['knn']}
    assert Image.open(out / 'restoration.png').size == (4 * 36, 2 * 36 + TITLES)
    samples = Image.open(out / 'samples.png').size  # with the classes' names on the left
    assert samples[0] > 8 * 34 + 2 and samples[1] == 2 * 34 + 2
    assert Image.open(out / 'curves.png').width == 3 * 600
    encoder = usp_mm.from_pretrained(out / 'encoder')
    assert encoder.encode([next((world / 'photos' / 'dark').iterdir())], pool='mean').shape == (1, 128)
    generator = usp_mm.from_pretrained(out / 'generator')
    assert generator.sample(['light'], steps=2, seed=0)[0].size == (32, 32)


@pytest.mark.slow
def test_the_commands_to_try_next_run(finished, shell, world):
    _, text = finished
    lines = [line.strip() for line in text.split('to try next:')[1].strip().splitlines()]
    assert [line.split()[0] for line in lines] == ['python', 'usp', 'usp']
    for line in (lines[1], f'{lines[2]} --steps 2'):
        code, told = shell.run(*shlex.split(line)[1:])
        assert code == 0, told
    assert Image.open(world / 'restored.png').height == 2 * 36 + TITLES and Image.open(world / 'more.png').width > 16 * 34 + 2
    done = run_tool(*shlex.split(lines[0])[1:], cwd=world)
    assert done.returncode == 0 and done.stdout.startswith('torch.Size([1, '), done.stderr


@pytest.mark.slow
def test_a_third_call_does_nothing_and_other_settings_are_refused(finished, shell, world):
    shell.commands = {}
    done = world / 'work_dirs' / 'photos' / 'done' / 'generate.json'
    before = done.stat().st_mtime_ns
    code, text = shell.run('train', 'photos', *SHORT)
    assert code == 0 and 'work_dirs/photos: is finished, there is nothing to do' in text
    for words, told in (
        ([*SHORT[:-1], '64'], 'was begun with img_size=32, now img_size=64: ask for the same, give another --out'),
        ([*SHORT, '--vae', 'sd-f8d4'], "was begun with vae=['laptop', None], now vae=['sd-f8d4', None]"),
        ([*SHORT, '--seed', '3'], 'was begun with seed=0, now seed=3'),
    ):
        code, text = shell.run('train', 'photos', *words)
        assert code == 1 and told in text
    extra = world / 'photos' / 'dark' / 'new.png'
    Image.new('RGB', (32, 32)).save(extra)
    code, text = shell.run('train', 'photos', *SHORT)
    extra.unlink()
    assert code == 1 and 'was begun with other pictures, now the folder has changed' in text
    assert not shell.commands and done.stat().st_mtime_ns == before


def assert_same_as_uninterrupted(shell, folder, checkpoint, command):
    """The command without --resume, in a folder of its own, gives the weights that the training in two parts has."""
    whole = folder.with_name('whole')
    words = [str(whole) if word == str(folder.relative_to(shell.folder)) else word for word in command if word != '--resume']
    assert str(whole) in words
    code, text = shell.run(*words)
    assert code == 0, text
    parts, once = (torch.load(one / checkpoint, weights_only=False)['state_dict'] for one in (folder, whole))
    assert parts.keys() == once.keys() and all(torch.equal(parts[key], once[key]) for key in once)


@pytest.mark.slow
def test_more_steps_go_on_from_the_finished_generator(finished, shell, world):
    """Earlier parts are not run again; checkpoint, samples and model folder are those of the longer training."""
    out, shell.commands = world / 'work_dirs' / 'photos', {}
    before = (out / 'pretrain' / 'last_checkpoint').stat().st_mtime_ns
    longer = [*SHORT, '--steps', '5']
    code, text = shell.run('train', 'photos', *longer)
    assert code == 0 and 'steps 2 → 5: generate goes on from its last checkpoint\n' in text, text
    assert list(shell.commands) == ['generator', 'samples', 'generator folder'] and '--resume' in shell.commands['generator']
    assert (out / 'generate' / 'last_checkpoint').read_text().endswith('iter_5.pth')
    assert read_run(out / 'generate').metric('loss')[0][-1] == 5
    assert json.loads((out / 'generator' / 'run_info.json').read_text())['iter'] == 5
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['plan']['steps'] == 5 and summary['generate']['checkpoint'].endswith('iter_5.pth')
    assert (out / 'pretrain' / 'last_checkpoint').stat().st_mtime_ns == before
    assert 'is finished, there is nothing to do' in shell.run('train', 'photos', *longer)[1]
    assert_same_as_uninterrupted(shell, out / 'generate', 'iter_5.pth', shell.commands['generator'])
    code, text = shell.run('train', 'photos', *SHORT)
    assert code == 1 and 'was begun with steps=5, now steps=2: a training goes on with more, not with fewer' in text


@pytest.mark.slow
def test_more_epochs_go_on_and_what_starts_from_the_encoder_begins_anew(finished, shell, world):
    out, shell.commands = world / 'work_dirs' / 'photos', {}
    longer = [*SHORT, '--steps', '5', '--epochs', '3']
    code, text = shell.run('train', 'photos', *longer, '--only', 'pretrain')
    assert code == 1 and '--epochs 3 runs generate again: leave --only out, or add it' in text
    code, text = shell.run('train', 'photos', *longer)
    assert code == 0 and 'epochs 2 → 3: pretrain goes on from its last checkpoint, at the learning rate that the' in text, text
    assert 'probe and generate begin anew from its encoder' in text
    assert list(shell.commands) == [
        'pretraining', 'restoration', 'encoder folder', 'linear probe', 'nearest neighbours', 'generator', 'samples',
        'generator folder',
    ]  # fmt: skip
    resumed = [name for name, words in shell.commands.items() if '--resume' in words]
    assert resumed == ['pretraining'] and len(list((out / 'generate').glob('*/vis_data'))) == 1
    assert (out / 'pretrain' / 'last_checkpoint').read_text().endswith('epoch_3.pth')
    assert json.loads((out / 'encoder' / 'run_info.json').read_text())['epoch'] == 3


def test_what_cannot_be_meant_is_refused_before_any_work(world, shell, tmp_path):
    for words, code, told in (
        (['photos', '--out', 'photos/run'], 1, "--out 'photos/run' lies in the folder of pictures"),
        (['photos', '--only', 'vae,cash', '--out', 'new'], 1, "unknown part 'cash': expected one of"),
        (['photos', '--only', 'probe', '--out', 'new'], 1, '--only probe needs vae, cache, pretrain first'),
        (['photos', '--vae', 'nowhere', '--out', 'new'], 1, "--vae 'nowhere' is neither a preset"),
        (['photos', '--amp'], 2, "--amp is for a config, and 'photos' is a folder of pictures"),
        (['photos', '--work-dir', 'x'], 2, "--work-dir is for a config, and 'photos' is a folder of pictures: give --out"),
        (['photos', '--minutes', '0.01', '--out', 'brief'], 1, 'more than --minutes 0.01: give --minutes'),
        (['usp_vit-tiny_1xb64-coslr-120e_digits', '--steps', '3'], 2, '--steps is for a folder of pictures, and no folder'),
        (['photos', '--out', str(tmp_path.parent)], 1, 'holds something else than a training'),
    ):
        found, text = shell.run('train', *words)
        assert (found, told in text) == (code, True), text
    assert not (world / 'new' / 'pictures').exists() and not (world / 'brief').exists()


def test_two_trainings_in_one_folder_are_refused(world, shell, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    with locked(out / '.lock', 'taken'):
        code, text = shell.run('train', 'photos', '--out', out, *SHORT)
    assert code == 1 and f"another usp train is running in '{out}': wait for it, or give another --out (process " in text
    assert [path.name for path in out.iterdir()] == ['.lock']  # nothing was begun, and what was left of a kill is no training
    shell.interrupt_at = 'VAE'
    code, text = shell.run('train', 'photos', '--out', out, *SHORT)
    shell.interrupt_at = None
    assert code == 130 and (out / 'plan.json').exists()


def test_overwrite_deletes_its_own_files_alone(world, shell):
    out = world / 'again'
    (out / 'latents').mkdir(parents=True)
    (out / 'mine.txt').write_text('kept')
    code, text = shell.run('train', 'photos', '--out', out, '--overwrite')
    assert code == 1 and 'holds no training of `usp train FOLDER`: give another --out' in text
    (out / 'plan.json').write_text('{"asked": {}, "plan": {}}')
    assert shell.run('train', 'photos', '--out', out, '--overwrite', '--minutes', '0.01')[0] == 1
    assert (out / 'latents').exists()  # the refusal came first
    Record(out).clear()
    assert [path.name for path in out.iterdir()] == ['mine.txt']


def test_a_file_whose_damage_shows_when_it_is_decoded_is_named_in_each_call(world, tmp_path, capsys):
    photos = tmp_path / 'some'
    photos.mkdir()
    for i, path in enumerate(sorted((world / 'photos').rglob('*.png'))[:6]):
        Image.open(path).save(photos / f'{i}.jpg')
    (photos / '3.jpg').write_bytes((photos / '3.jpg').read_bytes()[:-400])
    scan, record = scan_pictures(photos), Record(tmp_path / 'out')
    plan = choose_plan(6, 32, Machine(1, gpu=False))
    record.begin({}, plan)
    for _ in range(2):
        data = _pictures(scan, plan, record)
        told = capsys.readouterr().out
        assert '  left out, 3.jpg: ' in told and 'truncated' in told and list(data['broken']) == ['3.jpg']


def test_a_vae_by_its_folder(tiny_vae_folder, tmp_path):
    assert find_vae(str(tiny_vae_folder)) == ('tiny', str(tiny_vae_folder.resolve()))
    assert find_vae('sd-f8d4') == ('sd-f8d4', None)
    (tmp_path / 'config.json').write_text('{"_class_name": "VQModel"}')
    with pytest.raises(ValueError, match='is a VQModel'):
        find_vae(str(tmp_path))
    with pytest.raises(ValueError, match='--vae va-f16d32 needs weights'):
        find_vae('va-f16d32')
