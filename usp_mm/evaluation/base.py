"""What the generative metrics share: one pass over the samples, each counted once, and a report with the numbers."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub, MMLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from usp_mm.datasets.rank0 import decide_on_rank0
from usp_mm.mmagic_samples import from_mmagic
from usp_mm.renamed import weights_name

from .collect import NumberedFeatures
from .extractors import extract
from .reference import Reference, warn_of_other_classes
from .report import build_report, sampling_facts, summary, write_evaluation_report
from .statistics import ReferenceStatistics, reference_statistics


class GenerativeMetric(BaseMetric):
    """Compares generated images with a reference, in mmagic's loops as in MMEngine's, and outside of either.

    In mmagic's, `prepare` comes first and tells how the samples are drawn. In MMEngine's the data set's metainfo does, and
    its `evaluate(size)` how many there are. Elsewhere call `expect`, `add` with the images, and `evaluate`.

    Features are computed as images arrive. Samples are known by their number (`sample_idx`), so that the result depends
    neither on the number of processes nor, beyond rounding, on batch sizes.

    Args:
        reference: what to compare with.
        extractor: uint8 images -> features, with a string `identity`.
        features: names of the features whose mean and covariance are compared.
        neighbours: the feature for precision and recall.
        min_samples: fewer samples, or reference images for precision and recall, are refused.
        sample_model: 'ema' or 'model', which weights mmagic's loop asks the generator to sample with; its own choice if None.
        cache_dir: of the reference's statistics, see `cache_folder`.
        batch_size: images in a call of the extractor.
        out_dir: folder for the reports, one JSON file an evaluation; none if None.
        prefix: of the metrics' names.

    Attributes:
        report: of the last evaluation (main process), see `build_report`.

    Raises:
        ValueError: an extractor without identity; a reference with too few images.
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
        self.sample_model, self.cache_dir = weights_name(sample_model), cache_dir
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
        """Metrics, without prefix, of the features of all samples in the order of their numbers."""

    def expect(self, num: int, sampling: Mapping[str, Any]) -> None:
        """Say how many samples will come, and how they are drawn (`report.SAMPLING` and details).

        A warning tells of classes in the reference that are not the samples' (`classes`, or their number `num_classes`).

        Raises:
            ValueError: too few.
        """
        self._check_number(num)
        self._expected, self.sampling = num, dict(sampling)
        warn_of_other_classes(sampling, self.reference)

    def prepare(self, module: nn.Module, dataloader: DataLoader) -> None:
        """Learn from a generator and its requests what to expect, and obtain the reference's statistics.

        mmagic's loops call it once.

        Raises:
            ValueError: too few samples.
        """
        assert isinstance(dataloader.dataset, Sized)
        self.expect(len(dataloader.dataset), sampling_facts(module, dataloader, self.sample_model))
        self.device = next((x.device for x in module.parameters()), self.device)
        self._obtain_statistics()

    def get_metric_sampler(self, model: nn.Module, dataloader: DataLoader, metrics: Sequence[BaseMetric]) -> '_Requests':
        """The batches of `dataloader`, asking for samples of `sample_model` if it is set."""
        return _Requests(dataloader, self.sample_model)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take in a batch of a generator's results.

        Args:
            data_batch: not used.
            data_samples: dicts of what `usp_mm.mmagic_samples.to_mmagic` makes.

        Raises:
            ValueError: a result without them.
        """
        self.add(*from_mmagic(data_samples))

    def add(self, numbers: Sequence[int], images: Tensor) -> None:
        """Take in samples: their numbers, and uint8 images [N, 3, H, W] in RGB.

        Raises:
            ValueError: other images, or features that are not finite.
        """
        self._warn_of_other_size(images)
        self.extractor.to(self.device)
        for start in range(0, len(images), self.batch_size):
            chosen = slice(start, start + self.batch_size)
            self._samples.add(numbers[chosen], extract(self.extractor, images[chosen].to(self.device)))

    def evaluate(self, size: int | None = None) -> dict[str, float]:
        """Metrics of all samples since the last call, the same on every process; to be called on every one.

        Args:
            size: how many samples there should be; what `expect` or `prepare` was told if None.

        Raises:
            ValueError: not so many distinct samples, or too few.
            SystemExit: on the other processes, if the main one fails.
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
        """Not in use: `evaluate` gathers features, not a list of results."""
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
            write_evaluation_report(self.report, self.out_dir, self.prefix, _iteration())
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


def _iteration() -> int | None:
    """Of the training that this evaluation is a part of; MMEngine tells a metric by its message hub alone."""
    step = MessageHub.get_current_instance().get_info('iter')
    return None if step is None else int(step)


class _Requests:
    """A data loader whose batches also say which weights to sample with, if it matters."""

    def __init__(self, dataloader: DataLoader, sample_model: str | None) -> None:
        self.dataloader, self.sample_model = dataloader, sample_model

    def __len__(self) -> int:
        return len(self.dataloader)

    def __iter__(self) -> Iterator[dict]:
        asked = {} if self.sample_model is None else dict(sample_model=self.sample_model)
        for batch in self.dataloader:
            yield {**batch, 'inputs': {**batch['inputs'], **asked}}
