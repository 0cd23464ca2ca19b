"""The denoising loss of held-out latents as a metric of validation: no sampling and no Inception, so seconds."""

from collections.abc import Sequence, Sized
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from usp_mm.datasets import LatentCacheDataset, SampleRequests, all_datasets
from usp_mm.datasets.main_process import decide_on_rank0
from usp_mm.datasets.mmagic_samples import latents_from_mmagic
from usp_mm.models import LatentDiffusionGenerator
from usp_mm.models.denoising_loss import denoising_losses, summarise_losses
from usp_mm.registry import METRICS
from usp_mm.renaming.arguments import weights_name

from .base import current_iteration
from .collect import NumberedFeatures
from .report import write_evaluation_report

NAME = 'denoising_loss'
#: Default number of times in the grid.
NUM_TIMES = 20
HELD_OUT = "val_dataloader.dataset=dict(type='LatentCacheDataset', data_root=…, flip=False) of images that are not trained on"


@METRICS.register_module()
class DenoisingLoss(BaseMetric):
    """The mean of `usp_mm.models.denoising_loss.denoising_losses` over held-out samples and a grid of times.

    It is logged as `denoising_loss`, so that `save_best='denoising_loss'` keeps the best checkpoint, and lower is better. The
    values compare runs with the same VAE, objective, data, seed and number of times. On one kind of machine, the value does not
    depend on batch size and number of processes, to the last bit, if the latents come from a cache; a VAE that encodes images
    in batches may round differently.

    It works in mmagic's loops (`MultiValLoop`, `MultiTestLoop`) on a data loader of held-out data. Elsewhere call `prepare`,
    `add` and `evaluate`.

    Args:
        num_times: Number of times in the grid, see `Objective.time_grid`.
        seed: Seed of the noise, from 0 to 2^56 - 1.
        sample_model: Weights to evaluate, 'ema' or 'model'; None for the generator's own choice, the average unless its config
            says otherwise.
        num_samples: Number of samples, spread evenly over the data; None for all.
        out_dir: Folder for the reports, one JSON file per evaluation; None writes no file.
        prefix: Prefix of the metric's name; None for none.

    Attributes:
        report: Report of the last evaluation, on the main process: denoising_loss, standard_error (over samples), times,
            per_time, num_samples, seed, weights, objective, error (which part of the objective's losses this is) and
            left_out (the others).

    Raises:
        ValueError: A number is out of range.
    """

    SAMPLER_MODE = 'held-out latents'

    def __init__(
        self,
        num_times: int = NUM_TIMES,
        seed: int = 0,
        sample_model: str | None = None,
        num_samples: int | None = None,
        out_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        for name, value in dict(num_times=num_times, num_samples=num_samples).items():
            if value is not None and value < 1:
                raise ValueError(f'{name}={value} must be 1 or more')
        if not 0 <= seed < 2**56:
            raise ValueError(f'seed={seed} must be from 0 to 2^56 - 1')
        self.num_times, self.seed, self.num_samples, self.out_dir = num_times, seed, num_samples, out_dir
        self.sample_model = weights_name(sample_model)
        self.report: dict[str, Any] | None = None
        self._model: LatentDiffusionGenerator | None = None
        self._times = torch.zeros(0)
        self._expected: int | None = None
        self._samples = NumberedFeatures()

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Take the generator, and check that it and the data fit. mmagic's loops call this once, as does GeneratorCheckHook.

        Raises:
            ValueError: The model is no generator or lacks these weights; the data are no held-out samples, change from one
                validation to the next, or are too few.
        """
        self.take(module)
        dataset = dataloader.dataset
        parts = list(all_datasets(dataset))
        if any(isinstance(part, SampleRequests) for part in parts):
            raise ValueError(f'DenoisingLoss needs held-out data, the data loader has requests for samples: set {HELD_OUT}')
        if any(isinstance(part, LatentCacheDataset) and part.flip for part in parts):
            raise ValueError('DenoisingLoss needs the same view of a sample each time: set flip=False of its latent cache')
        assert isinstance(dataset, Sized)
        self.expect(len(dataset))

    def take(self, module: nn.Module) -> None:
        """Take the generator to be evaluated; ValueError if it is none, lacks these weights or has fewer times."""
        if not isinstance(module, LatentDiffusionGenerator):
            raise ValueError(f'the denoising loss is one of generators: {type(module).__name__} has none')
        module.check_sample_model(self.sample_model)
        self._times = module.objective.time_grid(self.num_times)
        self._model = module

    def expect(self, there: int) -> None:
        """Announce how many samples the data hold; ValueError if there are fewer than `num_samples`."""
        if self.num_samples is not None and self.num_samples > there:
            raise ValueError(f'num_samples={self.num_samples}, but the held-out data have {there}: ask for at most as many')
        self._expected = self.num_samples or there

    def get_metric_sampler(self, model: nn.Module, dataloader: DataLoader, metrics: Sequence[BaseMetric]) -> DataLoader:
        """The batches of `dataloader`, or with `num_samples` those of the chosen samples."""
        if self.num_samples is None:
            return dataloader
        dataset = dataloader.dataset
        assert isinstance(dataset, Sized)
        own = spread(self.num_samples, len(dataset))[get_rank() :: get_world_size()]
        return DataLoader(
            dataset, dataloader.batch_size, sampler=own, num_workers=dataloader.num_workers, collate_fn=dataloader.collate_fn
        )

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add a batch of latents.

        Args:
            data_batch: Not used.
            data_samples: Results of `usp_mm.datasets.mmagic_samples.latents_to_mmagic` as dicts.

        Raises:
            ValueError: A sample lacks its latent.
        """
        self.add(*latents_from_mmagic(data_samples))

    def add(self, numbers: Sequence[int], latents: Tensor, labels: Tensor) -> None:
        """Add samples: their numbers in the data set, scaled latents float32[N, C, h, w], and classes int64[N].

        Raises:
            ValueError: No generator was given to `prepare` or `take`, or a label is no class.
        """
        if self._model is None:
            raise ValueError("DenoisingLoss was not given the generator: use val_cfg=dict(type='MultiValLoop')")
        losses = denoising_losses(
            self._model, latents, labels, torch.tensor(numbers), self._times, seed=self.seed, sample_model=self.sample_model
        )
        self._samples.add(numbers, dict(losses=losses))

    def evaluate(self, size: int | None = None) -> dict[str, float]:
        """The mean over all samples since the last call. Must be called on every process; all get the same result.

        Raises:
            ValueError: The number of distinct samples is not the expected one, or a loss is not finite.
            SystemExit: On the other processes, if the main one fails.
        """
        expected = self._expected if self._expected is not None else size
        try:
            samples = self._samples.collect(expected, NAME)
        finally:
            self._samples.clear()
        return decide_on_rank0(lambda: self._summarise(samples['losses']))

    def compute_metrics(self, results: list) -> dict:
        """Not used, since `evaluate` gathers losses instead of a list of results."""
        raise NotImplementedError

    def _summarise(self, losses: Tensor) -> dict[str, float]:
        assert self._model is not None
        found, objective = summarise_losses(losses), self._model.objective
        self.report = dict(
            denoising_loss=found['denoising_loss'],
            standard_error=found['standard_error'],
            times=self._times.tolist(),
            per_time=found['per_time'],
            num_samples=len(losses),
            seed=self.seed,
            weights=self._model.check_sample_model(self.sample_model),
            objective=objective.describe(),
            error=objective.error,
            left_out=[*objective.left_out, *(['repa'] if self._model.repa is not None else [])],
        )
        MMLogger.get_current_instance().info(summary(self.report))
        name = NAME if self.prefix is None else f'{self.prefix}/{NAME}'
        if self.out_dir is not None:
            write_evaluation_report(self.report, self.out_dir, name.replace('/', '_'), current_iteration())
        return {name: found['denoising_loss']}


def spread(num: int, there: int) -> list[int]:
    """`num` numbers spread evenly over 0 … there - 1, increasing."""
    return [i * there // num for i in range(num)]


def summary(report: dict[str, Any]) -> str:
    """The report in one line."""
    curve = ', '.join(f't={time:g} {value:.4f}' for time, value in zip(report['times'], report['per_time'], strict=True))
    num, weights = report['num_samples'], report['weights']
    return f'denoising loss {report["denoising_loss"]:.6f} of {num} held-out samples ({weights} weights): {curve}'
