"""A training that diverges ends at once, says where, and leaves the checkpoints that it had."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.small_generation import shrink_generation
from helpers.small_segmentation import shrink_segmentation
from helpers.small_world import ROOT, load_leaf, train_quickly
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from usp_mm.engine import FiniteHook
from usp_mm.engine.hooks.finite_hook import _tensors
from usp_mm.fileio.weights import first_not_finite

PRETRAIN = 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k.py'
CLASSIFY = 'configs/vit/vit-base_usp-pre_8xb128-amp-coslr-100e_in1k.py'
SEGMENT = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'
GENERATE = 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px.py'


@HOOKS.register_module(force=True)
class Breaks(Hook):
    """After the optimizer's step of iteration `at`, one number somewhere is NaN."""

    priority = 'HIGHEST'

    def __init__(self, what: str, at: int) -> None:
        self.what, self.at = what, at

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 != self.at:
            return
        if self.what == 'loss':
            outputs['loss'] = outputs['loss'] * float('nan')
        elif self.what == 'weights':
            next(runner.model.parameters()).data.view(-1)[0] = float('nan')
        elif self.what == 'average':
            next(runner.model.denoiser_ema.parameters()).data.view(-1)[0] = float('inf')
        elif self.what == 'optimizer':
            state = next(iter(runner.optim_wrapper.optimizer.state.values()))
            state['exp_avg'].view(-1)[0] = float('nan')
        elif self.what == 'EMAHook':
            hook = next(hook for hook in runner.hooks if hasattr(hook, 'ema_model'))
            next(hook.ema_model.module.parameters()).data.view(-1)[0] = float('nan')


@HOOKS.register_module(force=True)
class Count(Hook):
    """How far a run came."""

    iterations = validations = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        Count.iterations += 1

    def before_val_epoch(self, runner):
        Count.validations += 1


def epochs(small_world, path=PRETRAIN):
    cfg = small_world.shrink(load_leaf(path), 64)
    cfg.train_cfg.max_epochs = 4
    cfg.default_hooks.checkpoint.max_keep_ckpts = 1
    return cfg


@pytest.mark.parametrize(
    ('what', 'told'),
    [
        ('loss', 'the loss of iteration 3 is NaN'),
        ('weights', r'backbone\.cls_token is NaN'),
        ('optimizer', r"the optimizer's state of [\w.]+\.exp_avg is NaN"),
    ],
)
def test_pretraining_ends_and_keeps_its_checkpoint(what, told, small_world, tmp_path):
    cfg = epochs(small_world)
    cfg.custom_hooks = [dict(type=Breaks, what=what, at=3)]
    with pytest.raises(ValueError, match=told) as error:
        train_quickly(cfg, tmp_path)
    last = tmp_path / 'epoch_2.pth'
    assert f"or infinite: the training ends and saves nothing more (the last checkpoint is '{last}')" in str(error.value)
    assert 'optim_wrapper.clip_grad.max_norm=1.0' in str(error.value) and '\n' not in str(error.value)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_2.pth']
    assert (tmp_path / 'last_checkpoint').read_text() == last.name
    state = torch.load(last, weights_only=True)['state_dict']
    assert all(x.isfinite().all() for x in state.values())


@pytest.mark.parametrize('what', ['weights', 'EMAHook'])
def test_a_classifier_keeps_its_best_checkpoint(what, small_world, tmp_path):
    """Also where what is saved is the average that MMEngine's EMAHook keeps."""
    cfg = epochs(small_world, CLASSIFY)
    cfg.default_hooks.checkpoint.update(save_best='auto', rule='greater', interval=100)
    cfg.custom_hooks = [dict(type='EMAHook'), dict(type=Breaks, what=what, at=2)]
    with pytest.raises(ValueError, match='is NaN or infinite: the training ends'):
        train_quickly(cfg, tmp_path)
    (best,) = tmp_path.glob('best_*.pth')
    assert best.name.endswith('epoch_1.pth')
    assert all(x.isfinite().all() for x in torch.load(best, weights_only=True)['state_dict'].values())


@pytest.mark.parametrize('what', ['loss', 'weights', 'average'])
def test_a_generator_ends_before_the_iteration_is_saved(what, small_world, tmp_path):
    cfg = shrink_generation(small_world, load_leaf(GENERATE))
    cfg.train_cfg.update(max_iters=4, val_interval=100)
    cfg.default_hooks.pop('visualization')
    cfg.default_hooks.logger.interval = 100
    cfg.default_hooks.checkpoint.update(interval=2, max_keep_ckpts=1)
    cfg.custom_hooks = [dict(type=Breaks, what=what, at=3)]
    with pytest.raises(ValueError, match=r"(iteration [34]|denoiser[\w.]*) is NaN or infinite.* checkpoint is '.*iter_2\.pth'"):
        train_quickly(cfg, tmp_path)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_2.pth']


def test_it_is_noticed_where_the_loss_is_logged_and_before_a_validation(small_world, tmp_path):
    def run(interval, val_interval):
        cfg = shrink_generation(small_world, load_leaf(GENERATE))
        cfg.train_cfg.update(max_iters=8, val_interval=val_interval)
        cfg.default_hooks.pop('visualization')
        cfg.default_hooks.logger.interval, cfg.default_hooks.checkpoint.interval = interval, 100
        cfg.custom_hooks = [dict(type=Breaks, what='loss', at=2), dict(type=Count)]
        Count.iterations = Count.validations = 0
        with pytest.raises(ValueError, match=r'the loss of iteration 2 is NaN or infinite.* \(no checkpoint was saved yet\)'):
            train_quickly(cfg, tmp_path)
        return Count.iterations, Count.validations

    assert run(3, 100) == (3, 0)
    assert run(100, 5) == (5, 0)
    assert run(100, 100) == (8, 0)  # before the last checkpoint


def test_segmentation_ends_too(small_world, tmp_path):
    cfg = shrink_segmentation(small_world, load_leaf(SEGMENT))
    cfg.custom_hooks = [dict(type=Breaks, what='weights', at=1)]
    with pytest.raises(ValueError, match=r'backbone\.cls_token is NaN or infinite'):
        train_quickly(cfg, tmp_path)
    assert not list(tmp_path.glob('*.pth'))


def test_a_save_that_no_hook_announced(small_world, tmp_path):
    """By a hook of somebody else, at any time."""

    class Saves(Hook):
        priority = 'NORMAL'

        def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
            runner.save_checkpoint(runner.work_dir, f'mine_{runner.iter + 1}.pth')

    cfg = epochs(small_world)
    cfg.custom_hooks = [dict(type=Breaks, what='weights', at=2), Saves()]
    with pytest.raises(ValueError, match=r'backbone\.cls_token is NaN or infinite'):
        train_quickly(cfg, tmp_path)
    assert (tmp_path / 'mine_1.pth').exists() and not (tmp_path / 'mine_2.pth').exists()


def test_a_run_is_not_resumed_with_a_broken_optimizer(small_world, tmp_path):
    train_quickly(epochs(small_world), tmp_path)
    content = torch.load(tmp_path / 'epoch_4.pth', weights_only=True)
    content['optimizer']['state'][0]['exp_avg_sq'].view(-1)[0] = float('inf')
    torch.save(content, tmp_path / 'broken.pth')
    cfg = epochs(small_world)
    cfg.resume, cfg.load_from = True, str(tmp_path / 'broken.pth')
    with pytest.raises(ValueError, match=r'cannot be resumed, optimizer\.state\.0\.exp_avg_sq is NaN or infinite'):
        train_quickly(cfg, tmp_path / 'again')


# ------------------------------------------------------------------ loss scaling


class Scaled(OptimWrapper):
    """AmpOptimWrapper, which wants a GPU, as far as the hook sees it."""

    loss_scaler = torch.amp.GradScaler('cpu')


def feed(losses, scaled, patience=3, every=2, several=False):
    """What the hook does with these losses, read in pairs; returns its warnings."""
    model, said = torch.nn.Linear(1, 1), []
    runner = SimpleNamespace(
        model=model, iter=0, hooks=[], max_iters=1000, message_hub=MessageHub.get_instance('finite'),
        optim_wrapper=(Scaled if scaled else OptimWrapper)(torch.optim.SGD(model.parameters(), lr=0.1)),
        logger=SimpleNamespace(warning=said.append),
    )  # fmt: skip
    if several:
        other = OptimWrapper(torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.3))
        runner.optim_wrapper = OptimWrapperDict(first=other, second=runner.optim_wrapper)
    hook = FiniteHook(patience)
    hook.before_train(runner)
    for i, loss in enumerate(losses):
        hook.before_train_iter(runner, i)
        hook.after_train_iter(runner, i, outputs=dict(loss=torch.tensor(loss)))
        runner.iter += 1
        if i % every == every - 1:
            hook._check_losses(runner)
    hook.after_train_epoch(runner)
    return said


def test_a_step_that_loss_scaling_skips_is_told_and_no_reason_to_end():
    inf, nan = float('inf'), float('nan')
    assert feed([1.0, 2.0, 3.0], scaled=True) == []
    assert feed([1.0, inf, nan, 2.0, 1.0], scaled=True) == [
        '1 of the losses of iterations 1 to 2 are NaN or infinite: loss scaling skips such steps',
        '1 of the losses of iterations 3 to 4 are NaN or infinite: loss scaling skips such steps',
    ]
    with pytest.raises(ValueError, match=r'the loss of each of the 4 iterations up to 5 is NaN or infinite'):
        feed([1.0, inf, nan, inf, nan], scaled=True, patience=4)
    for losses in ([1.0, inf, 1.0], [inf, inf, nan], [1.0, 1.0, nan]):
        first = 1 + next(i for i, x in enumerate(losses) if x != 1)
        with pytest.raises(ValueError, match=f'the loss of iteration {first} is NaN or infinite.* rate than 0.1,'):
            feed(losses, scaled=False)


def test_several_optimizers():
    """Their states are looked at, a scaler of one of them counts, and the largest learning rate is named."""
    inf = float('inf')
    assert feed([1.0, 2.0], scaled=False, several=True) == []
    assert len(feed([1.0, inf], scaled=True, several=True)) == 1
    with pytest.raises(ValueError, match=r'the loss of iteration 2 is NaN or infinite.* lower learning rate than 0\.3,'):
        feed([1.0, inf], scaled=False, several=True)
    model = torch.nn.Linear(1, 1)
    adam = torch.optim.Adam(model.parameters())
    adam.state[model.bias]['exp_avg'] = torch.tensor([inf])
    wrappers = OptimWrapperDict(
        first=OptimWrapper(torch.optim.SGD([model.weight], lr=0.1)), second=OptimWrapper(adam)
    )  # fmt: skip
    runner = SimpleNamespace(model=model, hooks=[], optim_wrapper=wrappers)
    assert first_not_finite(_tensors(runner)) == "the optimizer's state of bias.exp_avg"


def test_losses_that_no_logger_reads_are_read_nevertheless(monkeypatch):
    """They would fill the memory of a training by iterations."""
    monkeypatch.setattr('usp_mm.engine.hooks.finite_hook._KEPT', 4)
    with pytest.raises(ValueError, match='the loss of iteration 1 is NaN'):
        feed([float('nan'), 1.0, 1.0, 1.0], scaled=False, every=100)
    kept = []
    monkeypatch.setattr(FiniteHook, 'after_train_epoch', lambda hook, runner: kept.append(len(hook._losses)))
    feed([1.0] * 10, scaled=False, every=100)
    assert kept == [2]


@pytest.mark.parametrize('what', ['loss', 'weights', 'average'])
def test_nothing_is_drawn_of_what_is_not_finite(what, small_world, tmp_path):
    """With mmagic's hook, whose samples would be refused on one process alone."""
    cfg = shrink_generation(small_world, load_leaf(GENERATE))
    cfg.train_cfg.update(max_iters=4, val_interval=100)
    cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 100
    cfg.default_hooks.visualization.interval = 2
    cfg.custom_hooks = [dict(type=Breaks, what=what, at=2)]
    with pytest.raises(ValueError, match=r'(iteration 2|denoiser[\w.]*) is NaN or infinite: the training ends'):
        train_quickly(cfg, tmp_path)


def test_pictures_come_after_the_check_and_before_the_checkpoint(small_world, tmp_path):
    for cfg, picture in (
        (epochs(small_world), 'RestorationHook'),
        (shrink_generation(small_world, load_leaf(GENERATE)), 'VisualizationHook'),
    ):
        cfg.work_dir, cfg.experiment_name = str(tmp_path), picture
        order = [type(hook).__name__ for hook in Runner.from_cfg(cfg).hooks]
        assert order.index('FiniteHook') < order.index(picture) < order.index('AtomicCheckpointHook')


@pytest.mark.slow
def test_all_processes_end_together_though_one_alone_is_broken(tmp_path):
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    script = Path(__file__).with_name('finite_share.py')
    done = subprocess.run([*launcher, script, tmp_path], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    loss = 'the loss of iteration 2 is NaN or infinite'
    assert first[:2] == second[:2] == [[3, loss], [5, loss]]
    assert first[2] == [5, 'a tensor of another process is NaN or infinite']
    assert second[2] == [5, 'weight is NaN or infinite']
    assert first[3] == second[3] == [4, 'not at all']
    assert first[4] == [2, 'a tensor of another process is NaN or infinite']  # before a picture, which one process draws
    assert second[4] == [2, 'weight is NaN or infinite']


def test_patience():
    with pytest.raises(ValueError, match='patience=0 must be 1 or more'):
        FiniteHook(0)
