"""The metrics of ADM's evaluator (Dhariwal & Nichol, arXiv 2105.05233), which the paper's tables report."""

from torch import Tensor

from usp_mm.functional.metrics import frechet_distance, inception_score, mean_covariance, precision_recall
from usp_mm.registry import METRICS
from usp_mm.renaming.arguments import older_arguments

from .base import GenerativeMetric
from .computed_statistics import ReferenceStatistics
from .inception import InceptionFeatures
from .reference_data import Reference

#: Precision and recall: the ball around a feature reaches to its K-th nearest neighbour.
K = 3


@METRICS.register_module()
@older_arguments(image_size='img_size')
class ADMMetrics(GenerativeMetric):
    """FID, sFID, inception score (IS; ordered splits of 5,000), precision and recall (k = 3), in one pass over the samples.

    Args:
        reference: ADM's `.npz` (statistics, and images for precision and recall), an `.npz` with uint8 images [N, H, W, 3]
            as arr_0, or a folder of images.
        inception: File with torch-fidelity's weights; by default the one in PyTorch's cache.
        num_reference_pr: Number of reference images for precision and recall, evenly spaced over all; 0 omits both metrics.
        sample_model, cache_dir, batch_size, out_dir, prefix: See `GenerativeMetric`.
        img_size: Side in pixels that images of a reference folder are centre-cropped to; None keeps their size.
        num_workers: Number of processes that decode a reference folder.
        with_label: How to read a reference folder that has images beside sub-folders with images, see `FolderImages`.
        channels_last: See `InceptionFeatures`. The metrics change by less than 1e-6 of their values.

    Raises:
        FileNotFoundError: There is no reference, or there are no weights; the message names the file to fetch.
        ValueError: The reference lacks data that are needed, or has too few images.
    """

    def __init__(
        self,
        reference: str,
        inception: str | None = None,
        num_reference_pr: int = 10000,
        sample_model: str | None = None,
        cache_dir: str | None = None,
        batch_size: int = 64,
        out_dir: str | None = None,
        prefix: str = 'ADM',
        img_size: int | None = None,
        num_workers: int = 0,
        with_label: bool | None = None,
        channels_last: bool = False,
    ) -> None:
        checked = Reference(reference, True, num_reference_pr, img_size, num_workers, with_label)
        super().__init__(
            checked,
            InceptionFeatures(inception, channels_last),
            features=('pool', 'spatial'),
            neighbours='pool',
            min_samples=K + 1,
            sample_model=sample_model,
            cache_dir=cache_dir,
            batch_size=batch_size,
            out_dir=out_dir,
            prefix=prefix,
        )

    def compute(self, samples: dict[str, Tensor], reference: ReferenceStatistics) -> dict[str, float]:
        values = {
            name: frechet_distance(*reference.moments_on(self.device, feature), *mean_covariance(samples[feature]))
            for name, feature in (('FID', 'pool'), ('sFID', 'spatial'))
        }
        values['IS'] = inception_score(samples['probabilities'])
        if len(reference.neighbours):
            real = reference.neighbours.to(self.device)
            values['precision'], values['recall'] = precision_recall(real, samples['pool'], K)
        return values
