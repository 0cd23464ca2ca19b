import pytest
import torch

from usp_mm.datasets.mmagic_samples import from_mmagic, to_mmagic


def test_images_are_bgr_only_in_mmagics_form():
    images = torch.arange(2 * 3 * 2 * 2, dtype=torch.uint8).reshape(2, 3, 2, 2)
    samples = to_mmagic(images, torch.tensor([5, 7]), torch.tensor([1, 0]))
    assert torch.equal(samples[0].fake_img, images[0].flip(0).float()) and samples[1].gt_label.label.tolist() == [0]
    numbers, back = from_mmagic([sample.to_dict() for sample in samples])
    assert numbers == [5, 7] and back.dtype == torch.uint8 and torch.equal(back, images)


def test_samples_of_others_are_refused():
    with pytest.raises(ValueError, match=r"lack 'sample_idx' \(they have \['fake_img'\]\)"):
        from_mmagic([dict(fake_img=torch.zeros(3, 2, 2))])
