"""The sizes that are chosen for a folder and a machine."""

import math

import pytest

from usp_mm.own_pictures.longer import lengthen
from usp_mm.own_pictures.plan import SECONDS, Machine, choose_plan, estimate, override
from usp_mm.presets import VAES

LAPTOP, GPU = Machine(cores=2, gpu=False), Machine(cores=16, gpu=True)


@pytest.mark.parametrize(
    ('num', 'batch_size', 'crops', 'epochs', 'probe_epochs', 'shard_size'),
    [(18, 16, 4, 1333, 60, 256), (180, 32, 4, 267, 55, 256), (4500, 32, 0, 11, 2, 281), (1_170_000, 32, 0, 2, 2, 16384)],
)
def test_sizes_on_a_laptop(num, batch_size, crops, epochs, probe_epochs, shard_size):
    plan = choose_plan(num, 1000, LAPTOP)
    assert (plan.arch, plan.img_size, plan.tokens) == ('tiny', 64, 64)
    found = (plan.batch_size, plan.crops, plan.epochs, plan.probe_epochs, plan.shard_size)
    assert found == (batch_size, crops, epochs, probe_epochs, shard_size)


@pytest.mark.parametrize(
    ('num', 'arch', 'img_size', 'batch_size'),
    [(18, 'tiny', 128, 16), (180, 'tiny', 128, 32), (4500, 'small', 256, 32), (1_170_000, 'base', 256, 256)],
)
def test_sizes_on_a_gpu(num, arch, img_size, batch_size):
    plan = choose_plan(num, 1000, GPU)
    assert (plan.arch, plan.img_size, plan.batch_size) == (arch, img_size, batch_size)


@pytest.mark.parametrize(('side', 'img_size'), [(16, 32), (40, 32), (64, 64), (100, 64)])
def test_small_pictures_are_not_enlarged(side, img_size):
    plan = choose_plan(200, side, LAPTOP)
    assert plan.img_size == img_size and all(img_size % (VAES[vae]['stride'] * 2) == 0 for vae in ('laptop', 'sd-f8d4'))


def total(plan, num, classes=8, **machine):
    return sum(sum(part.values()) for part in estimate(plan, num, classes, num * 2.0, LAPTOP, **machine).values())


def test_200_photos_take_minutes_and_imagenet_hours_on_a_laptop():
    seconds = {num: total(choose_plan(num, 1000, LAPTOP), num) for num in (180, 1_170_000)}
    assert 60 < seconds[180] < 900 and seconds[1_170_000] > 3 * 3600
    plan = choose_plan(180, 1000, LAPTOP)
    assert math.isclose(total(plan, 180, speed=0.5), 2 * seconds[180])
    assert estimate(choose_plan(180, 1000, LAPTOP, 'sd-f8d4'), 180, 8, 360.0, LAPTOP)['vae'] == {}


def test_the_estimate_has_a_line_for_each_command_that_runs():
    plan = choose_plan(180, 1000, LAPTOP)
    parts = estimate(plan, 180, 8, 360.0, LAPTOP)
    assert {part: list(commands) for part, commands in parts.items()} == {
        'pictures': ['pictures'],
        'vae': ['VAE'],
        'cache': ['cache train', 'cache val'],
        'pretrain': ['pretraining', 'restoration', 'encoder folder'],
        'probe': ['linear probe', 'nearest neighbours'],
        'generate': ['generator', 'samples', 'generator folder'],
    }
    flat = estimate(plan, 180, 1, 360.0, LAPTOP)
    assert flat['probe'] == {} and {**flat, 'probe': parts['probe']}.keys() == parts.keys()
    samples = [found['generate']['samples'] - SECONDS['command'] for found in (parts, flat)]
    assert math.isclose(samples[0], 16 * samples[1])  # eight rows in place of one, and guidance
    assert flat['generate']['generator'] == parts['generate']['generator']


def test_fewer_steps_than_a_training_was_begun_with_are_refused(tmp_path):
    plan = override(choose_plan(180, 1000, LAPTOP), 180, dict(epochs=20, steps=100))
    everything = ('vae', 'cache', 'pretrain', 'probe', 'generate')
    with pytest.raises(ValueError, match='was begun with epochs=20, now epochs=19: a training goes on with more'):
        lengthen(plan, dict(epochs=19, steps=None), 180, tmp_path, everything)
    same = lengthen(plan, dict(epochs=20, steps=None), 180, tmp_path, everything)
    assert (same.plan, same.parts, same.lines) == (plan, set(), ())
    (tmp_path / 'pretrain').mkdir()
    more = lengthen(plan, dict(epochs=400, steps=101), 180, tmp_path, ('pretrain',))  # no generator was begun
    assert (more.goes_on, more.anew, more.plan.probe_epochs, more.plan.steps) == (('pretrain',), (), 55, 101)


def test_a_users_numbers_take_precedence_or_are_refused():
    plan = choose_plan(180, 1000, LAPTOP)
    changed = override(plan, 180, dict(img_size=48, batch_size=16, epochs=None, steps=7, vae_steps=None))
    assert (changed.img_size, changed.batch_size, changed.steps, changed.vae_steps) == (48, 16, 7, plan.vae_steps)
    assert abs(changed.iterations(180) - plan.iterations(180)) < 0.2 * plan.iterations(180)
    assert override(plan, 180, dict(epochs=2)).probe_epochs == 2
    for flags, told in (
        (dict(epochs=1), '--epochs 1 must be 2 or more'),
        (dict(vae_steps=0), '--vae-steps 0 must be 2 or more'),
        (dict(batch_size=181), '--batch-size 181 is more than the 180 training pictures'),
        (dict(img_size=60), "--img-size 60 must be a multiple of 8, a patch of VAE 'laptop'"),
    ):
        with pytest.raises(ValueError, match=told):
            override(plan, 180, flags)


def test_a_generator_that_could_not_be_trained_is_refused_before_the_plan(monkeypatch):
    from usp_mm.own_pictures import run

    monkeypatch.setattr(run, 'find_spec', lambda name: None)
    with pytest.raises(
        ImportError,
        match=r"needs mmagic: pip install '\.\[gen\]' in the checkout of usp_mm, .*--only vae,cache,pretrain,probe",
    ):
        run._check_installed(['vae', 'generate'])
    run._check_installed(['vae', 'cache', 'pretrain', 'probe'])
