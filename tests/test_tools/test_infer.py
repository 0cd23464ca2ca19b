"""tools/infer.py as a user runs it."""

import json

import numpy as np
import pytest
from helpers.small_world import run_tool
from PIL import Image

from usp_mm.apis import inferencer
from usp_mm.apis.inference import check_images
from usp_mm.images import find_images

CONFIG = 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py'


@pytest.mark.slow
def test_classify_and_embed_write_their_files(classifier, small_world, tmp_path):
    images = find_images([small_world.images / 'val'])
    done = run_tool('tools/infer.py', 'classify', *classifier, small_world.images / 'val', '--out', tmp_path / 'a' / 'c')
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (tmp_path / 'a' / 'c').iterdir()) == ['predictions.json', 'predictions.png']
    found = json.loads((tmp_path / 'a' / 'c' / 'predictions.json').read_text())['predictions']
    assert [one['path'] for one in found] == list(map(str, images))
    expected = inferencer(str(classifier[0]), classifier[1])(list(map(str, images)), batch_size=4)
    for one, other in zip(found, expected, strict=True):
        best = one['top'][0]
        assert (best['label'], best['class']) == (other['pred_label'], other['pred_class'])
        assert best['score'] == pytest.approx(other['pred_score'], abs=1e-6)
        assert sum(entry['score'] for entry in one['top']) == pytest.approx(1, abs=1e-5)
    assert Image.open(tmp_path / 'a' / 'c' / 'predictions.png').size == (800, 800)

    done = run_tool('tools/infer.py', 'embed', *classifier, *images[:3], '--out', tmp_path / 'e', '--batch-size', 2)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / 'e' / 'embeddings.npz') as content:
        assert (content['embeddings'].shape, content['embeddings'].dtype) == ((3, 32), np.float32)
        assert content['paths'].tolist() == list(map(str, images[:3]))


def test_missing_paths_and_non_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no image or folder at '.*none'"):
        find_images([tmp_path / 'none'])
    with pytest.raises(FileNotFoundError, match=r'no image in'):
        find_images([tmp_path])
    (tmp_path / 'text.png').write_text('text')
    with pytest.raises(ValueError, match=r"text\.png' is no image"):
        check_images(find_images([tmp_path]))


def test_config_and_checkpoint_are_read_once(classifier, small_world, tmp_path, tool_here, counts):
    image = find_images([small_world.images / 'val'])[0]
    assert tool_here('tools/infer.py', 'embed', *classifier, image, '--out', tmp_path)[0] == 0
    assert counts == {'checks': 1, 'epoch_1.pth': 1}
