"""Base class of the generative metrics: one pass over the samples, each counted once, and a report of the results."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from usp_mm.datasets.main_process import decide_on_rank0
from usp_mm.datasets.mmagic_samples import from_mmagic
from usp_mm.renaming.arguments import weights_name

from .collect import NumberedFeatures
from .computed_statistics import ReferenceStatistics, reference_statistics, usable_cache_folder
from .extractors import extract_batch
from .reference_data import Reference, warn_of_other_classes
from .report import build_report, sampling_facts, summary, write_evaluation_report


class GenerativeMetric(BaseMetric):
    """Compares generated images with a reference, within mmagic's or MMEngine's loops or outside of both.

    In mmagic's loops, `prepare` is called first and finds out how the samples are drawn. In MMEngine's, this comes from the
    data set's metainfo and the number of samples from `evaluate(size)`. Elsewhere call `expect`, `add` and `evaluate`.

    Features are computed as images arrive. Samples are identified by their number (`sample_idx`), so that the result does not
    depend on the number of processes nor, beyond rounding, on batch sizes.

    Args:
        reference: Reference to compare with.
        extractor: Module that maps uint8 images to features and has a string attribute `identity`.
        features: Names of the features whose mean and covariance are compared.
        neighbours: Name of the feature for precision and recall.
        min_samples: Smallest number of samples, and of reference images for precision and recall.
        sample_model: Weights that mmagic's loop asks the generator to sample with, 'ema' or 'model'; None leaves the choice to
            the generator.
        cache_dir: Folder for the reference's statistics, see `usable_cache_folder`.
        batch_size: Images per call of the extractor.
        out_dir: Folder for the reports, one JSON file per evaluation; None writes no file.
        prefix: Prefix of the metrics' names.

    Attributes:
        report: Report of the last evaluation, on the main process; see `build_report`.

    Raises:
        ValueError: The extractor has no identity, or the reference has too few images.
        OSError: The folder for the reference's statistics cannot be written to.
    """

    SAMPLER_MODE = 'normal'

    def __init__(
        self,
        reference: Reference,
        extractor: nn.Module,
        features: Sequence[str],
        neighbours: str,
        min_samples: int,
        sample_model: str | None = None,
        cache_dir: str | None = None,
        batch_size: int = 64,
        out_dir: str | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(prefix=prefix)
        identity = getattr(extractor, 'identity', None)
        if not isinstance(identity, str):
            raise ValueError(
                f"{type(extractor).__name__} has no string 'identity': statistics of the reference are kept under it, "
                'give it one that names architecture and weights'
            )
        if reference.images is not None and reference.images.num < min_samples:
            raise ValueError(f'reference {reference.path} has {reference.images.num} images, at least {min_samples} are needed')
        self.reference, self.extractor, self._identity = reference, extractor.eval(), identity
        self.features, self.neighbours, self.min_samples = tuple(features), neighbours, min_samples
        self.sample_model = weights_name(sample_model)
        self.cache_dir = usable_cache_folder(cache_dir) if reference.images is not None else cache_dir
        self.batch_size, self.out_dir = batch_size, out_dir
        self.report: dict[str, Any] | None = None
        self.sampling: dict[str, Any] = {}
        self.device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
        self._expected: int | None = None
        self._statistics: ReferenceStatistics | None = None
        self._ready = False
        self._samples = NumberedFeatures()

    @abstractmethod
    def compute(self, samples: dict[str, Tensor], reference: ReferenceStatistics) -> dict[str, float]:
        """Compute the metrics (names without prefix) from the features of all samples, which are sorted by number."""

    def expect(self, num: int, sampling: Mapping[str, Any]) -> None:
        """Announce the number of samples and how they are drawn.

        Logs a warning if the reference's classes differ from those of the samples.

        Args:
            num: Number of samples.
            sampling: Facts for the report: those in `report.SAMPLING` and any details. `classes`, or else `num_classes`, is
                compared with the reference.

        Raises:
            ValueError: There are too few samples.
        """
        self._check_number(num)
        self._expected, self.sampling = num, dict(sampling)
        warn_of_other_classes(sampling, self.reference)

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Call `expect` with the facts of a generator and its data loader, and obtain the reference's statistics.

        mmagic's loops call this once.

        Raises:
            ValueError: There are too few samples.
        """
        assert isinstance(dataloader.dataset, Sized)
        self.expect(len(dataloader.dataset), sampling_facts(module, dataloader, self.sample_model))
        self.device = next((x.device for x in module.parameters()), self.device)
        self._obtain_statistics()

    def get_metric_sampler(self, model: nn.Module, dataloader: DataLoader, metrics: Sequence[BaseMetric]) -> '_Requests':
        """The batches of `dataloader`, which also request `sample_model` if it is set."""
        return _Requests(dataloader, self.sample_model)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add a batch of a generator's results.

        Args:
            data_batch: Not used.
            data_samples: Results of `usp_mm.datasets.mmagic_samples.to_mmagic` as dicts.

        Raises:
            ValueError: A result lacks an entry.
        """
        self.add(*from_mmagic(data_samples))

    def add(self, numbers: Sequence[int], images: Tensor) -> None:
        """Add samples.

        Args:
            numbers: Numbers of the samples, N.
            images: RGB images, uint8[N, 3, H, W].

        Raises:
            ValueError: The images have another dtype or shape, or features are not finite.
        """
        self._warn_of_other_size(images)
        self.extractor.to(self.device)
        for start in range(0, len(images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            self._samples.add(numbers[chosen], extract_batch(self.extractor, images[chosen].to(self.device, non_blocking=True)))

    def evaluate(self, size: int | None = None) -> dict[str, float]:
        """Metrics of all samples since the last call. Must be called on every process; all get the same result.

        Args:
            size: Expected number of samples; None uses the number given to `expect` or `prepare`.

        Raises:
            ValueError: The number of distinct samples is not the expected one, or too small.
            SystemExit: On the other processes, if the main one fails.
        """
        expected = self._expected if size is None else size
        if expected is not None:
            self._check_number(expected)
        try:
            samples = self._samples.collect(expected, f'{self.prefix} metrics')
        finally:
            self._samples.clear()
        self._obtain_statistics()
        return decide_on_rank0(lambda: self._compute_and_report(samples))

    def compute_metrics(self, results: list) -> dict:
        """Not used, since `evaluate` gathers features instead of a list of results."""
        raise NotImplementedError

    def _compute_and_report(self, samples: dict[str, Tensor]) -> dict[str, float]:
        samples = {name: value.to(self.device) for name, value in samples.items()}
        num = len(next(iter(samples.values())))
        self._check_number(num)
        assert self._statistics is not None
        metrics = {f'{self.prefix}/{name}': value for name, value in self.compute(samples, self._statistics).items()}
        sampling = {**(self.dataset_meta or {}), **self.sampling}
        neighbours = len(self._statistics.neighbours)
        self.report = build_report(metrics, num, sampling, self.reference, neighbours, self._identity)
        MMLogger.get_current_instance().info(summary(self.report))
        if self.out_dir is not None:
            write_evaluation_report(self.report, self.out_dir, self.prefix, current_iteration())
        return metrics

    def _obtain_statistics(self) -> None:
        if not self._ready:
            self._statistics = reference_statistics(
                self.reference,
                self.extractor.to(self.device),
                self.features,
                self.neighbours,
                self.device,
                self.batch_size,
                self.cache_dir,
            )
            self._ready = True

    def _check_number(self, num: int) -> None:
        if num < self.min_samples:
            raise ValueError(f'{self.prefix} metrics need at least {self.min_samples} samples, there are {num}')

    def _warn_of_other_size(self, images: Tensor) -> None:
        size = getattr(self.reference.images, 'size', None)
        if self._samples or size is None or tuple(images.shape[-2:]) == tuple(size):
            return
        MMLogger.get_current_instance().warning(
            f'samples are {"x".join(map(str, images.shape[-2:]))}, images of reference {self.reference.name} '
            f'{"x".join(map(str, size))}: the extractor resizes both, and the difference counts as one between the images'
        )


def current_iteration() -> int | None:
    """Iteration of the training run that this evaluation belongs to; a metric can only get it from MMEngine's message hub."""
    step = MessageHub.get_current_instance().get_info('iter')
    return None if step is None else int(step)


class _Requests:
    """A data loader whose batches also name the weights to sample with, unless that is None."""

    def __init__(self, dataloader: DataLoader, sample_model: str | None) -> None:
        self.dataloader, self.sample_model = dataloader, sample_model

    def __len__(self) -> int:
        return len(self.dataloader)

    def __iter__(self) -> Iterator[dict]:
        asked = {} if self.sample_model is None else dict(sample_model=self.sample_model)
        for batch in self.dataloader:
            yield {**batch, 'inputs': {**batch['inputs'], **asked}}
