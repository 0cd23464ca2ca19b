"""Patches of MMEngine's checkpoints, loops, data sets and configs."""

import functools
import inspect
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

from usp_mm.compat.log_noise import quiet_imports, quiet_logger, quiet_warnings
from usp_mm.config.data_loaders import check_has_batch, without_workers

from .torch import carried


def checkpoint_files() -> None:
    """Let MMEngine (`load_from`, `--resume`, every OpenMMLab inferencer) read local checkpoints with this package's reader.

    Reason: MMEngine passes every local file to `torch.load`: safetensors files fail, `weights_only` depends on an environment
    variable, and the error for a broken file or for one that would run code is long and does not name the file. Downloads
    (`https://`, `torchvision://`, `mmcls://`, …) go through `torch.hub.load_state_dict_from_url`, which runs code by default.
    Delete when: MMEngine reads safetensors, and passes `weights_only=True`.
    """
    wrapt.register_post_import_hook(_read_as_data, 'mmengine.runner.checkpoint')


def _read_as_data(module: Any) -> None:
    from usp_mm.fileio.weights import load_from_address, load_from_local

    module.CheckpointLoader.register_scheme('', load_from_local, force=True)
    module.CheckpointLoader.register_scheme('hf://', load_from_address, force=True)
    module.load_url = load_from_address


def epochs_without_batches() -> None:
    """Let MMEngine refuse a data loader without a single batch as soon as it is built.

    Reason: with fewer images than a batch and `drop_last`, schedulers by epoch fail with "`epoch_length` must be a positive
    integer, but got 0"; without them, training takes no step or raises a StopIteration, and validation sees no sample.
    Delete when: MMEngine's loops say how many samples and which batch size they were given.
    """
    wrapt.register_post_import_hook(_refuse_no_batch, 'mmengine.runner.base_loop')


def _refuse_no_batch(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'BaseLoop.__init__')
    def init(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        from mmengine.dist import get_world_size

        wrapped(*args, **kwargs)
        kind = next((kind for kind in ('Val', 'Test') if kind in type(instance).__name__), 'Train')
        check_has_batch(instance.dataloader, f'{kind.lower()}_dataloader', get_world_size())


def loader_settings_without_effect() -> None:
    """Switch off what data loaders can't use: `pin_memory` without an accelerator, and the workers' settings without workers.

    Reason: torch warns that it does not pin memory, and refuses `persistent_workers` and `prefetch_factor` without workers.
    Delete when: torch's `DataLoader` takes these settings in silence.
    """
    wrapt.register_post_import_hook(_drop_what_has_no_effect, 'mmengine.runner.base_loop')


def _drop_what_has_no_effect(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'BaseLoop.__init__')
    def init(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        import torch

        def build(runner: Any, dataloader: Any) -> None:
            wrapped(runner, without_workers(dataloader))

        build(*args, **kwargs)
        if getattr(instance.dataloader, 'pin_memory', False) and not torch.accelerator.is_available():
            instance.dataloader.pin_memory = False


def index_of_class_balanced() -> None:
    """Let MMEngine's `ClassBalancedDataset` pass on the epoch and the seed of an `EpochIndex`.

    Reason: like `Subset`, it looks the inner index up in a list of plain numbers.
    Delete when: MMEngine's `ClassBalancedDataset` keeps the attributes of an index.
    """
    wrapt.register_post_import_hook(_carry_through_class_balanced, 'mmengine.dataset.dataset_wrapper')


def _carry_through_class_balanced(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'ClassBalancedDataset._get_ori_dataset_idx')
    def inner(wrapped: Callable[..., int], instance: Any, args: tuple, kwargs: dict[str, Any]) -> int:
        return carried(args[0] if args else kwargs['idx'], wrapped(*args, **kwargs))


def configs_formatted_once() -> None:
    """Let MMEngine format the text of a config only once per process.

    Reason: a run formats the same text six times, and each time yapf takes longer than a training step of a small model.
    Delete when: MMEngine caches `Config.pretty_text` until the config changes.
    """
    wrapt.register_post_import_hook(_keep_formatted, 'mmengine.config.config')


def _keep_formatted(module: Any) -> None:
    if not hasattr(module, 'FormatCode'):
        return  # imported for each call instead, as onedl-mmengine does
    original = module.FormatCode
    kept: dict[str, Any] = {}

    def format_code(text: str, **options: Any) -> Any:
        key = f'{options} {text}'
        if key not in kept:
            kept.clear()
            kept[key] = original(text, **options)
        return kept[key]

    module.FormatCode = format_code


def no_noise() -> None:
    """Leave out log records and warnings of upstream libraries that say nothing about the run; `log_noise` lists them.

    Reason: the first line of a training stood at line 270, after environment, config and hooks, which the log file keeps.
    Delete when: MMEngine's `Runner` logs these only to the file.
    """
    quiet_warnings()
    quiet_imports()
    wrapt.register_post_import_hook(_quiet_loggers, 'mmengine.logging.logger')


def _quiet_loggers(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'MMLogger.__init__')
    def init(wrapped: Callable[..., None], instance: Any, args: tuple, kwargs: dict[str, Any]) -> None:
        wrapped(*args, **kwargs)
        quiet_logger(instance)


def last_checkpoint_in_its_folder() -> None:
    """Let MMEngine's Runner find a checkpoint that `last_checkpoint` names relative to the work folder.

    Reason: MMEngine looks for a relative name in the current folder.
    Delete when: MMEngine writes such names itself.
    """
    for module in ('mmengine.runner.runner', 'mmengine.runner._flexible_runner'):
        wrapt.register_post_import_hook(_look_in_the_folder, module)


def _look_in_the_folder(module: Any) -> None:
    find = module.find_latest_checkpoint

    def find_latest_checkpoint(path: str) -> str | None:
        found = find(path)
        return os.path.join(path, found) if found and '://' not in found else found  # an absolute name stays as it is

    module.find_latest_checkpoint = find_latest_checkpoint


def signals_of_loader_processes() -> None:
    """Let the processes that load data ignore the signals that ask a training to end, but for those of the training itself.

    Reason: schedulers send them to all processes; the last step of a training would not get its batch.
    Delete when: MMEngine's loader processes leave SIGTERM and SIGUSR1 to the training, which ends them.
    """
    for module in ('mmengine.runner.runner', 'mmengine.runner._flexible_runner'):
        wrapt.register_post_import_hook(_ignore_signals, module)


def _ignore_signals(module: Any) -> None:
    init = module.default_worker_init_fn

    @functools.wraps(init)
    def worker_init_fn(*args: Any, **kwargs: Any) -> None:
        init(*args, **kwargs)
        parent = multiprocessing.parent_process()
        if parent is not None and hasattr(signal, 'sigwaitinfo'):
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_when_asked_by, args=(parent.pid,), daemon=True).start()

    module.default_worker_init_fn = worker_init_fn


def _end_when_asked_by(process: int | None) -> None:
    """Wait for a SIGTERM from this process, by which multiprocessing ends its children."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


def latest_validation_loss() -> None:
    """Let MMEngine log the latest value of a metric of validation or test whose name contains 'loss' or 'grad_norm'.

    Reason: for such names it logs the mean of the last ten validations (`LogProcessor.window_size`), which lags behind the
    value that `save_best` compares.
    Delete when: MMEngine's `LogProcessor` averages only what training logs.
    """
    wrapt.register_post_import_hook(_log_latest, 'mmengine.runner.log_processor')


def _log_latest(module: ModuleType) -> None:
    @wrapt.patch_function_wrapper(module, 'LogProcessor._collect_scalars')
    def collect(wrapped: Callable[..., dict], instance: Any, args: tuple, kwargs: dict[str, Any]) -> dict:
        tag = wrapped(*args, **kwargs)
        given = inspect.signature(wrapped).bind(*args, **kwargs).arguments
        custom_cfg, runner, mode = given['custom_cfg'], given['runner'], given['mode']
        if mode == 'train':
            return tag
        chosen = {cfg.get('log_name', cfg['data_src']) for cfg in custom_cfg}
        for key in tag:
            name = key.removeprefix(f'{mode}/')
            if name not in {*chosen, 'time', 'data_time'} and f'{mode}/{name}' in runner.message_hub.log_scalars:
                tag[key] = runner.message_hub.log_scalars[f'{mode}/{name}'].current()
        return tag
