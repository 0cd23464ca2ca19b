"""Principal components with fixed signs, and tokens as colours.

Shape legend: M examples, D numbers of each, K components.
"""

import torch
from torch import Tensor

#: Components whose standard deviation is below this share of the first one's are rounding errors and count as zero.
NOISE = 1e-6
#: Share of the values at each end that are drawn as the darkest and as the brightest, so that no single token sets the scale.
CLIPPED = 0.01


def principal_components(x_MD: Tensor, num: int = 3) -> tuple[Tensor, Tensor]:
    """Project examples on their first principal components, by a singular value decomposition in float64.

    A component's sign is free; it is chosen so that the entry of its direction with the largest absolute value is positive. The
    same examples therefore give the same result each time.

    Args:
        x_MD: Examples, float[M, D] with M of 2 or more.
        num: Number of components, 1 … D.

    Returns:
        Projections float64[M, num], and the share of the whole variance of each component, float64[num]. Components that the
        examples do not have, because there are too few or they are all alike, are zero.

    Raises:
        ValueError: There are fewer than two examples, a value is not finite, or `num` is out of range.
    """
    if x_MD.ndim != 2 or len(x_MD) < 2 or not 1 <= num <= x_MD.shape[1]:
        raise ValueError(f'{num} components of {list(x_MD.shape)}: expected 2 examples or more, and 1 to D components')
    centred = x_MD.double() - x_MD.double().mean(0)
    if not bool(centred.isfinite().all()):
        raise ValueError('principal components of values that are not finite: check that the training did not diverge')
    _, values, directions = torch.linalg.svd(centred, full_matrices=False)
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    there = values > max(NOISE * float(values[0]), torch.finfo(torch.float64).tiny)
    projected = (centred @ directions.T) * there
    shares = values.square() * there / values.square().sum().clamp(min=torch.finfo(torch.float64).tiny)
    missing = max(0, num - len(values))
    pad = torch.nn.functional.pad
    return pad(projected[:, :num], (0, missing)), pad(shares[:num], (0, missing))


def as_colours(x_MK: Tensor) -> Tensor:
    """Scale each column to 0 … 255, from its 1st to its 99th percentile: float[M, K] -> uint8[M, K]; constants become 128."""
    levels = torch.tensor([CLIPPED, 1 - CLIPPED], dtype=torch.float64, device=x_MK.device)
    low, high = torch.quantile(x_MK.double(), levels, dim=0)
    span = high - low
    scaled = torch.where(span > 0, (x_MK.double() - low) / span.clamp(min=torch.finfo(torch.float64).tiny), 0.5)
    return (scaled.clamp(0, 1) * 255).round().to(torch.uint8)
