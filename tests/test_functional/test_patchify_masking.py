import pytest
import torch

from usp_mm.functional.ddpm import diffuse, linear_alpha_bar
from usp_mm.functional.masking import gather_tokens, mask_from_noise
from usp_mm.functional.patchify import normalize_target, patchify, unpatchify


def test_patch_order_and_inverse():
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = patchify(x, 2)
    assert patches.shape == (2, 6, 12)
    assert patches[0, 1].tolist() == [x[0, c, r, 2 + k].item() for r in range(2) for k in range(2) for c in range(3)]
    assert torch.equal(unpatchify(patches, 2, (2, 3)), x)


def test_sides_must_be_multiples_of_the_patch():
    with pytest.raises(ValueError, match='cannot cut a 5x4 map into 2x2 patches'):
        patchify(torch.zeros(1, 1, 5, 4), 2)


@pytest.mark.parametrize(('over', 'dims'), [('patch', -1), ('image', (1, 2))])
def test_targets_have_zero_mean_and_unit_unbiased_variance(over, dims):
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float32) * 3 + 5
    y = normalize_target(x, over).double()
    torch.testing.assert_close(y.mean(dim=dims), torch.zeros_like(y.mean(dim=dims)), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(dim=dims), torch.ones_like(y.var(dim=dims)), rtol=0, atol=1e-5)


@pytest.mark.parametrize('over', ['patch', 'image'])
def test_the_variance_of_a_target_is_raised_by_a_millionth(over):
    """Within the root: where all values but two are equal, the normalised ones show it."""
    x = torch.zeros(1, 1, 16)
    x[..., :2] = torch.tensor([1e-3, -1e-3])
    variance = 2e-6 / 15
    expected = 1e-3 / (variance + 1e-6) ** 0.5
    torch.testing.assert_close(normalize_target(x, over)[0, 0, :3], torch.tensor([expected, -expected, 0.0]), rtol=1e-5, atol=0)


@pytest.mark.parametrize(('ratio', 'kept'), [(0.75, 49), (0.4, 117), (0.85, 29)])
def test_mask_keeps_the_smallest_noise(ratio, kept):
    noise = torch.rand(3, 196, generator=torch.Generator().manual_seed(0))
    keep, restore, mask = mask_from_noise(noise, ratio)
    assert keep.shape == (3, kept) and mask.sum(1).tolist() == [196 - kept] * 3
    assert torch.equal(noise.gather(1, keep), noise.sort(1).values[:, :kept])
    shuffled = gather_tokens(noise[..., None], noise.argsort(1))
    assert torch.equal(gather_tokens(shuffled, restore)[..., 0], noise)


def test_diffusion_levels():
    alpha_bar = linear_alpha_bar()
    assert alpha_bar[0].item() == pytest.approx(1 - 1e-4)
    assert alpha_bar[999].item() == pytest.approx(4.0358e-5, rel=1e-4)
    x0, noise = torch.ones(2, 3), torch.full((2, 3), 2.0)
    out = diffuse(x0, torch.tensor([1.0, 0.25]), noise)
    torch.testing.assert_close(out, torch.tensor([[1.0] * 3, [0.5 + 3**0.5] * 3]))
