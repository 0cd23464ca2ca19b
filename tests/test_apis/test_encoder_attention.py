"""`Encoder.attention` and `Encoder.cropped` on files, arrays and latents."""

import numpy as np
import pytest
import torch
from helpers.doc_blocks import blocks
from helpers.trained_files import load, picture
from PIL import Image


@pytest.mark.parametrize('kind', ['pretraining', 'classifier'])
def test_maps_are_a_softmax_of_ten_lines(files, kind):
    """softmax(QKᵀ/√d) of the class token, from the features of the block before and the state dict."""
    encoder = load(files[kind])
    found = encoder.attention([files['picture'], files['other']], layer=2)
    tokens = encoder.encode([files['picture'], files['other']], layer=1, pool=None)
    block = encoder.network.blocks[1]
    with torch.no_grad():
        q, k, _ = block.attn.qkv(block.norm1(tokens)).chunk(3, dim=-1)
    for head in range(2):
        part = slice(16 * head, 16 * head + 16)
        rows = (q[..., part] @ k[..., part].transpose(1, 2) / 4).softmax(-1)
        torch.testing.assert_close(rows.sum(-1), torch.ones(2, 17))
        np.testing.assert_allclose(found[:, head].reshape(2, 16), rows[:, 0, 1:].numpy(), atol=1e-6)
    assert found.shape == (2, 2, 4, 4) and found.dtype == np.float32 and 0 <= found.min() <= found.max() <= 1


def test_layers_count_from_one_or_from_the_end_and_batches_do_not_matter(files):
    encoder, images = load(files['pretraining']), [files['picture'], files['other'], files['picture']]
    last = encoder.attention(images)
    np.testing.assert_array_equal(last, encoder.attention(images, layer=2))
    np.testing.assert_allclose(last, encoder.attention(images, batch_size=1), atol=1e-6)
    np.testing.assert_array_equal(encoder.attention(images, layer=-2), encoder.attention(images, layer=1))
    assert np.abs(last - encoder.attention(images, layer=1)).max() > 1e-3
    np.testing.assert_array_equal(last[0], last[2])
    for wrong in (0, 3, -3):
        with pytest.raises(ValueError, match=f'layer {wrong} is not there: the model has blocks 1 to 2, or from the end -1'):
            encoder.attention(images, layer=wrong)
    with pytest.raises(ValueError, match=r"query='head' must be one of \('cls', 'patches'\)"):
        encoder.attention(images, query='head')


def test_latents_of_another_size_have_their_own_grid(files):
    encoder = load(files['pretraining'], load_vae=False)
    received = encoder.attention(torch.randn(2, 4, 12, 12), query='patches')
    assert received.shape == (2, 2, 6, 6) and 0 < received.sum((2, 3)).min() <= received.sum((2, 3)).max() < 1


def test_cropped_pictures_are_what_is_encoded(files):
    encoder = load(files['pretraining'])
    pixels = encoder.cropped([files['picture'], Image.open(files['other'])])
    assert pixels.shape == (2, 64, 64, 3) and pixels.dtype == np.uint8
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(encoder.attention(tensor), encoder.attention([files['picture'], files['other']]))
    np.testing.assert_array_equal(encoder.cropped(files['picture']), pixels[:1])


def test_the_python_of_the_page(files, tmp_path, monkeypatch):
    load(files['pretraining']).save_pretrained(tmp_path / 'my-encoder')
    for seed, name in enumerate(('cat.png', 'dog.png')):
        picture(tmp_path / name, seed).rename(tmp_path / name.replace('.png', '.jpg'))
    monkeypatch.chdir(tmp_path)
    (block,) = [block for block in blocks('docs/what-it-sees.md') if block.language == 'python']
    values = {}
    exec(compile(block.text, str(block), 'exec'), values)  # noqa: S102
    encoder = load(files['pretraining'])
    np.testing.assert_allclose(values['maps'], encoder.attention(['cat.jpg', 'dog.jpg']), atol=1e-6)
    np.testing.assert_allclose(values['received'], encoder.attention(['cat.jpg', 'dog.jpg'], 2, 'patches'), atol=1e-6)
