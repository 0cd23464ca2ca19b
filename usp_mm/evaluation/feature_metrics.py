"""Metrics like ADM's with any feature extractor, for evaluation without Inception's weights or on other data."""

from torch import Tensor, nn

from usp_mm.functional.metrics import density_coverage, frechet_distance, mean_covariance, precision_recall, vendi_score
from usp_mm.registry import METRICS, MODELS
from usp_mm.renaming.arguments import older_arguments

from .base import GenerativeMetric
from .computed_statistics import ReferenceStatistics
from .reference_data import Reference

#: The ball around a feature reaches to its K-th nearest neighbour: K of ADM, and K of the paper on density and coverage.
K_PRECISION, K_DENSITY = 3, 5


@METRICS.register_module()
@older_arguments(image_size='img_size')
class FeatureMetrics(GenerativeMetric):
    """Fréchet distance (FD), precision and recall (k = 3), density and coverage (k = 5), and the samples' Vendi score.

    Args:
        extractor: A module as described in `extractors`, or the config of one registered in MODELS.
        reference: An `.npz` with uint8 images [N, H, W, 3] as arr_0, or a folder of images.
        num_reference_pr: Number of reference images for precision, recall, density and coverage, evenly spaced over all.
        sample_model, cache_dir, batch_size, out_dir, prefix: See `GenerativeMetric`.
        img_size: Side in pixels that images of a reference folder are centre-cropped to; None keeps their size.
        num_workers: Number of processes that decode a reference folder.
        with_label: How to read a reference folder that has images beside sub-folders with images, see `FolderImages`.

    Raises:
        FileNotFoundError: There is no reference.
        ValueError: The reference has no images, or too few.
    """

    def __init__(
        self,
        extractor: dict | nn.Module,
        reference: str,
        num_reference_pr: int = 10000,
        sample_model: str | None = None,
        cache_dir: str | None = None,
        batch_size: int = 64,
        out_dir: str | None = None,
        prefix: str = 'Feature',
        img_size: int | None = None,
        num_workers: int = 0,
        with_label: bool | None = None,
    ) -> None:
        if num_reference_pr <= K_DENSITY:
            raise ValueError(f'num_reference_pr={num_reference_pr}: at least {K_DENSITY + 1} reference images are needed')
        checked = Reference(reference, False, num_reference_pr, img_size, num_workers, with_label)
        super().__init__(
            checked,
            extractor if isinstance(extractor, nn.Module) else MODELS.build(extractor),
            features=('features',),
            neighbours='features',
            min_samples=K_DENSITY + 1,
            sample_model=sample_model,
            cache_dir=cache_dir,
            batch_size=batch_size,
            out_dir=out_dir,
            prefix=prefix,
        )

    def compute(self, samples: dict[str, Tensor], reference: ReferenceStatistics) -> dict[str, float]:
        fake, real = samples['features'], reference.neighbours.to(self.device)
        precision, recall = precision_recall(real, fake, K_PRECISION)
        density, coverage = density_coverage(real, fake, K_DENSITY)
        return dict(
            FD=frechet_distance(*reference.moments_on(self.device, 'features'), *mean_covariance(fake)),
            precision=precision,
            recall=recall,
            density=density,
            coverage=coverage,
            vendi=vendi_score(fake),
        )
