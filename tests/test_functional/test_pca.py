"""Principal components: the eigenvectors of the covariance, with signs that do not change from call to call."""

import pytest
import torch

from usp_mm.functional.pca import as_colours, principal_components


def examples(num=50, width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(num, width, generator=generator) * torch.arange(width, 0, -1) + 5


def test_projections_have_the_variances_of_the_covariances_eigenvalues():
    x = examples()
    projected, shares = principal_components(x, 3)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
    torch.testing.assert_close(projected.var(0), eigenvalues[:3])
    torch.testing.assert_close(shares, eigenvalues[:3] / eigenvalues.sum())
    torch.testing.assert_close(torch.corrcoef(projected.T), torch.eye(3, dtype=torch.float64))
    assert projected.mean(0).abs().max() < 1e-12


def test_signs_follow_the_largest_entry():
    x = torch.zeros(4, 3)
    x[:, 1] = torch.tensor([-3.0, -1.0, 1.0, 3.0])
    for sign in (1, -1):  # a decomposition of either has its own sign
        projected, _ = principal_components(torch.cat([x, sign * 1e-3 * torch.eye(3)]), 1)
        assert projected[0, 0] < 0 < projected[3, 0]
    torch.testing.assert_close(principal_components(x, 1)[0][:, 0], x[:, 1].double())


def test_the_order_of_the_examples_does_not_change_a_projection():
    x, order = examples(), torch.randperm(50, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(principal_components(x[order])[0], principal_components(x)[0][order])


@pytest.mark.parametrize(
    ('x', 'there'),
    [(torch.ones(5, 4), 0), (torch.arange(5.0)[:, None] * torch.ones(4), 1), (examples(2), 1), (examples(3), 2)],
    ids=['alike', 'on a line', 'two', 'three'],
)
def test_components_that_are_not_there_are_zero(x, there):
    projected, shares = principal_components(x, 3)
    assert projected.shape == (len(x), 3) and (projected.abs().amax(0) > 0).tolist() == [k < there for k in range(3)]
    assert (shares > 0).tolist() == [k < there for k in range(3)] and float(shares.sum()) == pytest.approx(min(1, there))


@pytest.mark.parametrize('x', [torch.ones(1, 4), torch.ones(4, 2), torch.ones(4), torch.full((4, 4), torch.nan)], ids=str)
def test_what_has_no_components_is_refused(x):
    with pytest.raises(ValueError, match=r'principal components|3 components of'):
        principal_components(x, 3)


def test_colours_span_the_range_without_the_extreme_values():
    x = torch.stack([torch.arange(101.0), torch.full((101,), 3.0)], 1)
    colours = as_colours(x)
    assert colours.dtype == torch.uint8 and colours[:2, 0].tolist() == [0, 0] and colours[-2:, 0].tolist() == [255, 255]
    assert colours[50, 0] == 128 and (colours[:, 1] == 128).all()
