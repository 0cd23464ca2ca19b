"""The numbers of ADM's evaluator (Dhariwal & Nichol, arXiv 2105.05233), which the paper's tables are made of."""

from torch import Tensor

from usp_mm.functional.metrics import frechet_distance, inception_score, mean_covariance, precision_recall
from usp_mm.registry import METRICS
from usp_mm.renamed import older_arguments

from .base import GenerativeMetric
from .inception import InceptionFeatures
from .reference import Reference
from .statistics import ReferenceStatistics

#: Nearest neighbours that make a ball, for precision and recall.
K = 3


@METRICS.register_module()
@older_arguments(image_size='img_size')
class ADMMetrics(GenerativeMetric):
    """FID, sFID, inception score (IS; ordered splits of 5,000), precision and recall (k = 3), in one pass over the samples.

    Args:
        reference: ADM's `.npz` (statistics, and images for precision and recall), an `.npz` with uint8 images [N, H, W, 3]
            as arr_0, or a folder of images.
        inception: torch-fidelity's weights; by default the file in PyTorch's cache.
        num_reference_pr: reference images for precision and recall, evenly spaced over all; 0 leaves the two out.
        sample_model, cache_dir, batch_size, out_dir, prefix: see `GenerativeMetric`.
        img_size: side to centre-crop the images of a reference folder to; as they are if None.
        num_workers: processes that decode a reference folder.
        with_label: how a reference folder that can be read in two ways is read, see `FolderImages`.

    Raises:
        FileNotFoundError: no reference, or no weights: names the file to fetch.
        ValueError: a reference without what is needed, or with too few images.
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
    ) -> None:
        checked = Reference(reference, True, num_reference_pr, img_size, num_workers, with_label)
        super().__init__(
            checked,
            InceptionFeatures(inception),
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
