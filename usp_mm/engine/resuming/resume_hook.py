"""ResumeHook: make a resumed run follow its own config."""

from functools import partial
from typing import Any, NamedTuple

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator
from torch.utils.data import DataLoader

from usp_mm.registry import HOOKS

from ..loops import SEEN
from ..optim.hyper_parameters import hyper_parameter_names, optimizer_state
from ..runner_parts import batch_size, by_epoch, of_optimizer, resuming, schedulers_of, unwrapped, wrappers
from .regroup import Layouts, changed_options, layouts, only_in_one, regroup
from .run_settings import changes, guessed_settings, saved_schedulers, training_settings
from .schedule import advance, needs_score

#: Where MMEngine's message hub keeps [epoch, samples of it that were seen beyond whole iterations of this run's batch].
OFFSET = 'epoch_offset'
#: Where a checkpoint's `meta` keeps `training_settings`.
SETTINGS = 'training_settings'
_FIX = 'start from its weights with load_from, without --resume'


class Position(NamedTuple):
    """Position of a run: completed epochs (0 in a loop over iterations), and iterations since then.

    `seen` is how many samples of the epoch each process has had (0 in a loop over iterations, which counts them itself).
    """

    epoch: int
    iteration: int
    seen: int = 0


@HOOKS.register_module()
class ResumeHook(Hook):
    """Take weights and moments of a resumed run from its checkpoint, and everything else from its own config.

    MMEngine's resume replaces the config's hyper-parameters and schedules by the checkpoint's, whose ends are counted in old
    iterations. If batch size, processes, accumulation, length, hyper-parameters or schedules differ from the checkpoint's, the
    log has one line for each difference, and all hyper-parameters take the values that an uninterrupted run of this config has
    at the same progress, measured in epochs, or in samples in a loop over iterations. Values that an optimizer itself keeps in
    its groups, such as step counts, come from the checkpoint. If nothing differs, nothing is changed; groups that
    `MergeParamGroupsHook` merges do not count as a difference. The checkpoint's seed is used for the training data as for all
    else.

    Checkpoints store the settings as `meta['training_settings']`.

    Raises:
        ValueError: The checkpoint has no optimizer or message hub, has another optimizer, other parameter groups or another
            kind of loop, has trained for longer than this config, or was saved within an epoch and the sampler cannot start
            there.
    """

    priority = 'LOW'  # after the checks of the weights

    def __init__(self) -> None:
        self._settings: dict[str, Any] | None = None
        self._offset: list[int] | None = None

    def before_train(self, runner: Runner) -> None:
        if self._offset is not None:  # after the checkpoint's message hub was loaded
            runner.message_hub.update_info(OFFSET, self._offset)

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):
            self._settings = training_settings(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self._settings is not None:
            checkpoint['meta'][SETTINGS] = self._settings

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not resuming(runner) or not isinstance(runner._train_loop, BaseLoop):
            return
        _take_seed(runner, (checkpoint.get('meta') or {}).get('seed'))
        if not isinstance(runner, Runner):
            kind = type(runner).__name__
            runner.logger.warning(f"resume: {kind} takes hyper-parameters and schedules from the checkpoint, not the config's")
            return
        new = self._settings
        assert new is not None, 'a Runner calls before_run before it resumes'
        _check_whole(checkpoint)
        old = _saved_settings(runner, checkpoint, new)
        _check_same_kind(old, new)
        lines = [*changes(old, new), *_take_groups(runner, checkpoint)]
        saved = Position(checkpoint['meta']['epoch'], checkpoint['meta']['iter'])
        position = _position(runner, checkpoint, old, new)
        for line in lines:
            runner.logger.warning(f'resume: {line}')
        _check_left(saved, position, old, new)
        # a checkpoint of an epoch's last iteration was saved before the epoch-wise scheduler steps
        ended = by_epoch(runner) and position.epoch != saved.epoch
        if lines or ended or (runner.param_schedulers and 'param_schedulers' not in checkpoint):
            _take_over(runner, checkpoint, position, new)
        if position.seen:
            _seek(runner, position.seen)
            beyond = position.seen - position.iteration * new['batch_size']
            self._offset = [position.epoch, beyond * new['world_size']]
        _log_start(runner, checkpoint, saved, new, bool(lines))


def _take_seed(runner: Runner, seed: int | None) -> None:
    """Give the training data the checkpoint's seed.

    MMEngine uses it for everything but the data loaders, which are built before the checkpoint is read.
    """
    loader, now = runner.train_dataloader, runner.seed
    if seed is None or seed == now:
        return
    if runner._randomness_cfg.get('seed') is not None:
        runner.logger.warning(f"resume: the seed is the checkpoint's, {seed}, not randomness.seed={now} of the config")
    samplers: list[Any] = [loader.sampler, getattr(loader.batch_sampler, 'sampler', None)]
    for sampler in samplers:
        if getattr(sampler, 'seed', None) == now:  # a sampler's own seed is kept
            sampler.seed = seed
            if isinstance(sampler, InfiniteSampler):
                sampler.indices = sampler._indices_of_rank()
    start = loader.worker_init_fn
    if isinstance(start, partial) and start.keywords.get('seed') == now:
        start.keywords['seed'] = seed
    if hasattr(runner.train_loop, 'dataloader_iterator'):  # its workers have begun to load
        runner.train_loop.dataloader_iterator = _InfiniteDataloaderIterator(loader)


def _check_whole(checkpoint: dict) -> None:
    """Refuse a checkpoint that was saved for publishing or testing only."""
    for key, what in (('optimizer', 'state of the optimizer'), ('message_hub', 'message hub')):
        if key not in checkpoint:
            raise ValueError(f'the checkpoint holds no {what}, so a run cannot be resumed from it: {_FIX}')


def _saved_settings(runner: Runner, checkpoint: dict, new: dict[str, Any]) -> dict[str, Any]:
    old = checkpoint['meta'].get(SETTINGS)
    if old is None:
        old = guessed_settings(checkpoint, new)
        now = ', '.join(f'{key}={new[key]}' for key in ('batch_size', 'world_size', 'accumulative_counts'))
        runner.logger.warning(f'resume: the checkpoint does not say with which batch it was trained: {now} as now is assumed')
    return old


def _check_same_kind(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse differences that no change of the schedule can resolve."""
    kinds = ['iterations' if settings['max_epochs'] is None else 'epochs' for settings in (old, new)]
    if kinds[0] != kinds[1]:
        raise ValueError(f'the checkpoint is of a run over {kinds[0]}, train_cfg counts {kinds[1]}: {_FIX}')
    if old['optimizers'] != new['optimizers']:
        raise ValueError(f"the checkpoint's optimizer is {old['optimizers']}, the config's is {new['optimizers']}: {_FIX}")


def _take_groups(runner: Runner, checkpoint: dict) -> list[str]:
    """Convert the optimizer's state to this run's parameter groups; return a line for each hyper-parameter that differs."""
    found: dict[str, Layouts] = {}
    lines = []
    for name, wrapper in wrappers(runner).items():
        saved = of_optimizer(checkpoint['optimizer'], name)
        both = layouts(runner, wrapper, saved)
        if both is None:
            theirs = [len(group['params']) for group in saved['param_groups']]
            ours = [len(group['params']) for group in wrapper.optimizer.param_groups]
            raise ValueError(
                f'the checkpoint has {len(theirs)} parameter groups of {sum(theirs)} parameters, the optimizer has '
                f'{len(ours)} of {sum(ours)}{only_in_one(wrapper, unwrapped(runner), saved)}: '
                f"use the checkpoint's optim_wrapper.paramwise_cfg and frozen parts, or {_FIX}"
            )
        found[name] = both
        lines += changed_options(runner, wrapper, saved, both, name)
    for name, wrapper in wrappers(runner).items():
        regroup(runner, wrapper, checkpoint, found[name], name)
    return lines


def _position(runner: Runner, checkpoint: dict, old: dict[str, Any], new: dict[str, Any]) -> Position:
    """Position of a run with the settings `new` after the same samples as the checkpoint's."""
    epoch, iteration = checkpoint['meta']['epoch'], checkpoint['meta']['iter']
    batches = [settings['batch_size'] * settings['world_size'] for settings in (old, new)]
    if new['max_epochs'] is None:
        seen = checkpoint['message_hub']['runtime_info'].get(SEEN, iteration * batches[0])
        return Position(0, seen // batches[1])
    rest = iteration - epoch * old['iters_per_epoch']
    if not 0 <= rest <= old['iters_per_epoch']:
        rest = 0  # a run whose iterations were counted otherwise
    offset = checkpoint['message_hub']['runtime_info'].get(OFFSET, [epoch, 0])
    seen = (rest * batches[0] + (offset[1] if offset[0] == epoch else 0)) // new['world_size']
    left = _batches_left(runner.train_dataloader, seen)
    if rest == old['iters_per_epoch'] or not left:
        return Position(epoch + 1, 0)
    return Position(epoch, max(new['iters_per_epoch'] - left, 0), seen)


def _batches_left(loader: DataLoader, seen: int) -> int:
    """Batches of the rest of an epoch of which this process has had so many samples."""
    left, size = max(len(loader.sampler) - seen, 0), batch_size(loader)  # type: ignore[arg-type]  # a Sized
    return left // size if getattr(loader.batch_sampler, 'drop_last', loader.drop_last) else -(-left // size)


def _take_over(runner: Runner, checkpoint: dict, position: Position, settings: dict[str, Any]) -> None:
    """Write this run's hyper-parameters, schedules and position into the checkpoint, from which MMEngine then resumes."""
    length = settings['iters_per_epoch'] or 0
    if settings['max_epochs'] is not None:
        checkpoint['meta']['epoch'] = position.epoch
    checkpoint['meta']['iter'] = position.epoch * length + position.iteration
    states = {}
    for name, wrapper in wrappers(runner).items():
        schedulers = schedulers_of(runner, name)
        groups, states[name] = advance(wrapper.param_groups, schedulers, position.epoch, length, position.iteration)
        saved = of_optimizer(checkpoint['optimizer'], name)
        theirs = [*saved['param_groups'], *([saved['base_param_settings']] if 'base_param_settings' in saved else [])]
        _keep_scored(runner, schedulers, states[name], saved_schedulers(checkpoint, name), groups, theirs)
        names = hyper_parameter_names(wrapper.optimizer, runner.cfg.get('optim_wrapper'))
        whole = [
            {**ours, **optimizer_state(group, names), 'params': group['params']}
            for ours, group in zip(groups, theirs, strict=False)
        ]
        count = len(saved['param_groups'])
        saved['param_groups'] = whole[:count]
        if len(whole) > count:
            saved['base_param_settings'] = whole[count]
    checkpoint['param_schedulers'] = states.get('', states)


def _keep_scored(
    runner: Runner, schedulers: list, states: list[dict], old_states: list[dict], groups: list[dict], theirs: list[dict]
) -> None:
    """Keep the values in the checkpoint that schedulers derived from validation scores."""
    for i, scheduler in enumerate(schedulers):
        if not needs_score(scheduler):
            continue
        if i >= len(old_states) or 'num_bad_epochs' not in old_states[i]:
            runner.logger.warning(f'resume: param_scheduler.{i} ({type(scheduler).__name__}) is new and starts here')
            continue
        name = scheduler.param_name
        kept = ('last_step', '_global_step', 'best', 'num_bad_epochs', 'cooldown_counter')
        states[i].update({key: old_states[i][key] for key in kept})
        for ours, group in zip(groups, theirs, strict=False):
            base = group.get(f'initial_{name}', group[name])
            ours[name] = group[name] * (ours[f'initial_{name}'] / base if base else 1)
        states[i]['_last_value'] = [group[name] for group in groups]
        runner.logger.warning(
            f'resume: param_scheduler.{i} ({type(scheduler).__name__}) follows validation scores, which are not taken again: '
            f'{name} goes on from {theirs[-1][name]}, the last of the checkpoint, in proportion to the base values'
        )


def _check_left(saved: Position, position: Position, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse a checkpoint that has already trained for longer than this config does."""
    if new['max_epochs'] is not None:
        if position.epoch > new['max_epochs']:
            raise ValueError(
                f'the checkpoint has trained for {position.epoch} epochs, train_cfg.max_epochs is {new["max_epochs"]}: '
                'give the epochs of the whole run, or start from the weights with load_from, without --resume'
            )
        return
    moved = position.iteration != saved.iteration
    if position.iteration > new['max_iters'] or (moved and position.iteration == new['max_iters']):
        fitting = round(old['max_iters'] * position.iteration / max(saved.iteration, 1))
        raise ValueError(
            f'after the checkpoint, the samples of {position.iteration} iterations are trained on, train_cfg.max_iters is '
            f"{new['max_iters']}: give the iterations of the whole run at this batch ({fitting} for the checkpoint's run)"
        )


def _seek(runner: Runner, seen: int) -> None:
    """Start the next epoch after the first `seen` samples of this process."""
    loader = runner.train_dataloader
    if not hasattr(loader.sampler, 'seek'):
        raise ValueError(
            f'the checkpoint is from within an epoch, where train_dataloader.sampler {type(loader.sampler).__name__} cannot '
            "start: use sampler=dict(type='EpochSampler'), or a checkpoint of an epoch's end"
        )
    loader.sampler.seek(seen)


def _log_start(runner: Runner, checkpoint: dict, saved: Position, settings: dict[str, Any], changed: bool) -> None:
    meta = checkpoint['meta']
    if meta['epoch'] == settings['max_epochs'] or meta['iter'] == settings['max_iters']:
        runner.logger.warning('resume: the checkpoint is the end of the run: nothing is left to train')
    if not changed:
        runner.logger.info('resume: the settings are those of the checkpoint')
        return
    rates = [group['lr'] for name in wrappers(runner) for group in of_optimizer(checkpoint['optimizer'], name)['param_groups']]
    runner.logger.warning(
        f"resume: the run goes on at epoch {meta['epoch']}, iteration {meta['iter']} (the checkpoint's: {saved.epoch}, "
        f'{saved.iteration}), where this config has a learning rate of {max(rates):.4g}'
    )
