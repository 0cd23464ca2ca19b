"""Check a generator's settings before the first step, rather than hours into training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from usp_mm.datasets import LatentCacheDataset, all_datasets
from usp_mm.evaluation import DenoisingLoss
from usp_mm.evaluation.denoising_loss import HELD_OUT
from usp_mm.models import LatentDiffusionGenerator
from usp_mm.registry import HOOKS
from usp_mm.renaming.arguments import recorded_weights

from ..hooks.ema_hook import GeneratorEMAHook
from ..runner_parts import datasets_of, metrics_of, unwrapped


@HOOKS.register_module()
class GeneratorCheckHook(Hook):
    """Compare a generator with its data, its validation and its pictures.

    Raises:
        ValueError: The requests or pictures have more classes than the generator; nothing updates the averaged weights;
            validation or pictures need weights or a VAE that the model does not have; the weights, width or token grid of a
            teacher (REPA) do not fit, or its cached tokens are from another teacher; or nothing uses the tokens or images that
            are stored beside the latents; or `DenoisingLoss` has no held-out data, or shares its data with another metric.
        FileNotFoundError: The teacher's weights do not exist.
    """

    def before_train(self, runner: Runner) -> None:
        model = unwrapped(runner)
        if model.denoiser_ema is not None and not any(isinstance(hook, GeneratorEMAHook) for hook in runner.hooks):
            raise ValueError(
                "model.ema is set, but nothing updates the average: add dict(type='GeneratorEMAHook') to the hooks"
            )
        _check_teacher(model, runner.train_loop.dataloader.dataset)
        _log_route(model, runner)
        if runner.val_loop is not None:
            self._check_loop(model, runner.val_loop)
            check_held_out(model, runner.val_loop, runner.train_loop.dataloader.dataset)
            metrics = [metric for metric in metrics_of(runner.val_loop) if not isinstance(metric, DenoisingLoss)]
            if metrics:
                names = [metric.sample_model for metric in metrics if hasattr(metric, 'sample_model')]
                self._check_sampling(model, 'validation', names)
        for kwargs in _pictures(runner):
            self._check_sampling(model, 'the visualization hook', [kwargs.get('sample_model')])
            _check_classes(model, 'the visualization hook', 1 + max(map(int, kwargs.get('labels') or [0])))

    def before_test(self, runner: Runner) -> None:
        self._check_loop(unwrapped(runner), runner.test_loop)
        check_held_out(unwrapped(runner), runner.test_loop, None)

    def _check_loop(self, model: LatentDiffusionGenerator, loop: BaseLoop) -> None:
        for dataset in datasets_of(loop):
            meta = getattr(dataset, 'metainfo', None) or {}
            _check_classes(model, type(dataset).__name__, meta.get('num_classes') or len(meta.get('classes') or ()))

    def _check_sampling(self, model: LatentDiffusionGenerator, who: str, sample_models: list[str | None]) -> None:
        if model.data_preprocessor.codec.network is None:
            raise ValueError(
                f'{who} decodes samples, but the VAE is not loaded: set model.data_preprocessor.load_vae=True, or leave out '
                'val_evaluator and default_hooks.visualization'
            )
        for name in sample_models:
            model.check_sample_model(recorded_weights(name))  # mmagic's own metrics say 'orig'


def _log_route(model: Any, runner: Runner) -> None:
    if (route := getattr(model.denoiser, 'route', None)) is None:
        return
    runner.logger.info(f'denoiser.route: in training, {route}; sampling and validation use all')
    if model.repa is not None and route.inside(model.repa.depth):
        runner.logger.info(
            f'repa.depth={model.repa.depth} lies inside denoiser.route, from {route.start} to {route.end}: only the '
            "tokens that are kept there are aligned, each with the teacher's of the same place"
        )


def check_held_out(model: LatentDiffusionGenerator, loop: BaseLoop, training: Any) -> None:
    """Check the data of each `DenoisingLoss` of a loop, of which `training`, a data set or None, must be no part.

    Raises:
        ValueError: The loop is not one of mmagic's; other metrics share the data; `DenoisingLoss.prepare` refuses the data; or
            they are those of training.
    """
    if not any(isinstance(metric, DenoisingLoss) for metric in metrics_of(loop)):
        return
    if not hasattr(loop, 'evaluators'):
        raise ValueError(f"DenoisingLoss does not work in {type(loop).__name__}: set val_cfg=dict(type='MultiValLoop')")
    trained = {_place(part) for part in all_datasets(training)} - {None}
    for evaluator, loader in zip(loop.evaluators, loop.dataloaders, strict=True):
        metrics = evaluator.metrics or ()
        losses = [metric for metric in metrics if isinstance(metric, DenoisingLoss)]
        if losses and len(losses) < len(metrics):
            other = next(type(metric).__name__ for metric in metrics if metric not in losses)
            raise ValueError(
                f'DenoisingLoss needs held-out data and {other} requests for samples, but they share a data loader: keep '
                f'DenoisingLoss in val_evaluator and {other} in test_evaluator, for usp test'
            )
        for metric in losses:
            metric.prepare(model, loader)
            if shared := trained.intersection(_place(part) for part in all_datasets(loader.dataset)):
                raise ValueError(f"DenoisingLoss has the training data '{shared.pop()}': give {HELD_OUT}")


def _place(dataset: Any) -> Path | None:
    """Where a cache or a folder of images is; None if this is not known."""
    place = getattr(dataset, 'folder', None) or getattr(dataset, 'img_prefix', None)
    return Path(place).expanduser().resolve() if isinstance(place, str | Path) and str(place) else None


def _check_classes(model: LatentDiffusionGenerator, where: str, found: int) -> None:
    if found > model.denoiser.num_classes:
        raise ValueError(
            f'{where} has {found} classes, the generator {model.denoiser.num_classes}: '
            'make model.denoiser.num_classes, the requests for samples (val_dataloader.dataset.num_classes, '
            'test_dataloader.dataset.num_classes) and the pictures '
            '(default_hooks.visualization.vis_kwargs_list.forward_kwargs.labels) agree'
        )


def _check_teacher(model: Any, dataset: Any) -> None:
    """Compare the teacher with the tokens in every cache; if no cache has tokens, load the teacher and run it once."""
    caches = [found for found in all_datasets(dataset) if isinstance(found, LatentCacheDataset)]
    for found in caches or [dataset]:
        _check_tokens(model, found)


def _check_tokens(model: Any, dataset: Any) -> None:
    repa, cached = model.repa, isinstance(dataset, LatentCacheDataset)
    if repa is None:
        if cached and (dataset.teacher is not None or dataset.has_images):
            raise ValueError(
                f"train_dataloader.dataset of '{dataset.folder}' reads a teacher's tokens or images, which nothing uses "
                'without model.repa: set its teacher=None and images=None'
            )
        return
    if not (cached and dataset.teacher is not None):
        if cached and not dataset.has_images:
            raise ValueError(
                f"model.repa needs what teacher '{repa.teacher.name}' sees beside the latents of '{dataset.folder}': set "
                f"train_dataloader.dataset.teacher='{repa.teacher.name}' for tokens that were cached too "
                "('usp cache write … --teacher'), or .images to the folder that it was written from"
            )
        repa.prepare(model.denoiser.pos_embed.device)
        return
    if dataset.has_images:
        raise ValueError(
            f"train_dataloader.dataset of '{dataset.folder}' has teacher='{dataset.teacher}' and images: with cached tokens "
            'the images would be decoded for nothing, set one of the two to None'
        )
    found, wanted = dataset.manifest['teacher'], dict(name=repa.teacher.name, dim=repa.teacher.dim, size=repa.teacher.size)
    for key, value in wanted.items():
        if found[key] != value:
            raise ValueError(
                f"latent cache '{dataset.folder}' holds tokens of a teacher with {key}={found[key]!r}, model.repa.teacher has "
                f'{value!r}: name the teacher that was cached, or cache this one'
            )
    repa.check_grid(tuple(found['grid']))


def _pictures(runner: Runner) -> Iterator[dict]:
    """Yield the arguments with which mmagic's VisualizationHook calls the generator."""
    for hook in runner.hooks:
        for kwargs in getattr(hook, 'vis_kwargs_list', None) or ():
            yield kwargs.get('forward_kwargs') or {}
