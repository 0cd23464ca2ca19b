"""RunInfoHook: record the facts needed to interpret the logged times and metrics of a run."""

import platform
from pathlib import Path
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import get_world_size, master_only
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from usp_mm.datasets import LatentCacheDataset, all_datasets
from usp_mm.fileio.atomic import write_json
from usp_mm.models import USP, USPClassifier
from usp_mm.registry import HOOKS
from usp_mm.vaes.pixel import PixelCodec

from ..runner_parts import accumulative_counts, batch_size, unwrapped, wrappers
from .flops import count_flops

FILE = 'run_info.json'


@HOOKS.register_module()
class RunInfoHook(Hook):
    """Write `<work_dir>/<timestamp>/run_info.json` when training begins or is resumed.

    Keys: config, stage ('pretraining', 'classification', 'generation', 'segmentation', or the model's type), model, network;
    world_size, device, device_name, batch_size (per process and iteration), accumulative_counts (iterations per optimizer step;
    a dict by name if several optimizers differ); parameters (trainable ones); flops_per_sample and train_flops_per_sample (see
    `count_flops`; null if they cannot be counted); online_encoding (whether each step runs the VAE's encoder, whose operations
    are not counted); torch, seed, start_iter, max_iters, iters_per_epoch (null in a loop over iterations), log_window (number
    of iterations over which a logged time is averaged), labels_per_class and labels_seed (of training data with few labels;
    null if every sample is used).
    """

    priority = 'LOW'  # after the checks that may refuse to train

    @master_only
    def before_train(self, runner: Runner) -> None:
        write_json(Path(runner.log_dir) / FILE, run_info(runner))


def run_info(runner: Runner) -> dict[str, Any]:
    """The facts about a runner that is about to train, as `RunInfoHook` lists them."""
    model = unwrapped(runner)
    loader, loop = runner.train_dataloader, runner.train_loop
    network = getattr(model, 'denoiser', getattr(model, 'backbone', model))
    flops = _flops(runner, model)
    per_optimizer = {name: accumulative_counts(wrapper) for name, wrapper in wrappers(runner).items()}
    counts = set(per_optimizer.values())
    return dict(
        config=Path(runner.cfg.filename).name if runner.cfg.filename else runner.experiment_name,
        stage=_stage(model),
        model=type(model).__name__,
        network=type(network).__name__,
        world_size=get_world_size(),
        device=get_device(),
        device_name=device_name(),
        batch_size=batch_size(loader),
        accumulative_counts=counts.pop() if len(counts) == 1 else per_optimizer,
        parameters=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        flops_per_sample=flops and flops['forward'],
        train_flops_per_sample=flops and flops['train'],
        online_encoding=_encodes(model, loader.dataset),
        torch=torch.__version__,
        seed=runner.seed,
        start_iter=runner.iter,
        max_iters=runner.max_iters,
        iters_per_epoch=len(loader) if isinstance(loop, EpochBasedTrainLoop) else None,
        log_window=runner.log_processor.window_size,
        **_few_labels(loader.dataset),
    )


def device_name() -> str:
    """Name of the GPU, or the number of threads and name of the processor."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f'{torch.get_num_threads()} CPU threads ({platform.machine()})'


def _stage(model: nn.Module) -> str:
    if hasattr(model, 'denoiser'):
        return 'generation'
    if hasattr(model, 'decode_head'):
        return 'segmentation'
    stages = {'pretraining': USP, 'classification': USPClassifier}
    return next((stage for stage, kind in stages.items() if isinstance(model, kind)), type(model).__name__)


def _flops(runner: Runner, model: nn.Module) -> dict[str, int] | None:
    """Operations per sample; None, with the reason in the log, if the model cannot be counted."""
    if is_model_wrapper(runner.model) and not isinstance(runner.model, MMDistributedDataParallel):
        runner.logger.warning(f'floating-point operations are not counted: {type(runner.model).__name__} splits the weights')
        return None
    try:
        return count_flops(model)
    except Exception as error:  # a failed count must not stop the training
        runner.logger.warning(f'floating-point operations are not counted: {type(error).__name__}: {error}')
        return None


def _few_labels(dataset: Any) -> dict[str, int | None]:
    """The first choice of a few labels among the data sets; None twice if there is none."""
    for one in all_datasets(dataset):
        if (number := getattr(one, 'labels_per_class', None)) is not None:
            return dict(labels_per_class=number, labels_seed=one.labels_seed)
    return dict(labels_per_class=None, labels_seed=None)


def _encodes(model: nn.Module, dataset: Any) -> bool:
    """Whether the data are images that a VAE encodes for the network."""
    codec = getattr(getattr(model, 'data_preprocessor', None), 'codec', None)
    encoder = codec is not None and codec.network is not None and not isinstance(codec, PixelCodec)
    encoder = encoder or getattr(getattr(model, 'backbone', None), 'codec', None) is not None
    return encoder and not any(isinstance(one, LatentCacheDataset) for one in all_datasets(dataset))
