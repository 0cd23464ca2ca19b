"""Parts of a Runner as the hooks ask for them: its model, loops, data sets, metrics, optimizer wrappers and schedulers."""

from collections.abc import Iterator
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper, OptimWrapperDict, _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from usp_mm.datasets import all_datasets


def resuming(runner: Runner) -> bool:
    """Whether the checkpoint being loaded is the one from which the run resumes, rather than weights loaded later."""
    return bool(runner._resume) and not getattr(runner, '_has_loaded', False)


def built_loops(runner: Runner) -> Iterator[tuple[str, BaseLoop]]:
    """Yield ('training', 'validation' or 'test', loop) for each loop that has been built."""
    for name, stage in (('_train_loop', 'training'), ('_val_loop', 'validation'), ('_test_loop', 'test')):
        loop = getattr(runner, name, None)
        if isinstance(loop, BaseLoop):
            yield stage, loop


def loaders_of(loop: BaseLoop) -> list[DataLoader]:
    """The data loaders of a loop; mmagic's loops have several."""
    return getattr(loop, 'dataloaders', None) or [loop.dataloader]


def datasets_of(loop: BaseLoop) -> Iterator[Any]:
    """Yield the data sets of a loop, and every data set inside them."""
    for loader in loaders_of(loop):
        yield from all_datasets(loader.dataset)


def metrics_of(loop: BaseLoop) -> list[Any]:
    """The metrics of a loop; mmagic's loops have several evaluators."""
    evaluators = getattr(loop, 'evaluators', None) or [loop.evaluator]
    return [metric for evaluator in evaluators for metric in evaluator.metrics or ()]


def unwrapped(runner: Runner) -> Any:
    """The model of the class that the config names, without wrappers for DDP or test-time augmentation."""
    model = runner.model
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def by_epoch(runner: Runner) -> bool:
    """Whether the run counts its length in epochs."""
    return isinstance(runner.train_loop, EpochBasedTrainLoop)


def batch_size(loader: DataLoader) -> int:
    """Samples per process and iteration."""
    return loader.batch_size if loader.batch_size is not None else getattr(loader.batch_sampler, 'batch_size', 1)


def wrappers(runner: Runner) -> dict[str, OptimWrapper]:
    """The optimizer wrappers by name; a single one has the name ''."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def accumulative_counts(wrapper: OptimWrapper) -> int:
    """Iterations per optimizer step."""
    return getattr(wrapper, '_accumulative_counts', 1)


def of_optimizer(collection: Any, name: str) -> Any:
    """The part of an MMEngine collection (schedulers, or a checkpoint's states) for the optimizer `name` of `wrappers`."""
    return collection[name] if name else collection


def schedulers_of(runner: Runner, name: str) -> list[_ParamScheduler]:
    """The built schedulers of an optimizer of `wrappers`."""
    return list(of_optimizer(runner.param_schedulers, name) or []) if runner.param_schedulers else []
