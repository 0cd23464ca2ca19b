import pytest
import torch

from usp_mm.evaluation import InceptionFeatures
from usp_mm.evaluation.inception import WEIGHTS_NAME, find_weights, full_float32
from usp_mm.fileio.atomic import sha256


@pytest.fixture(scope='module')
def photographs():
    return torch.randint(0, 256, (3, 3, 40, 40), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_features_are_those_of_the_graph(inception, photographs):
    seen = {}
    network = inception.network
    hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda module, args, out: seen.update(branch=out))
    features = inception(photographs)
    hook.remove()
    assert {name: tuple(value.shape) for name, value in features.items()} == {
        'pool': (3, 2048),
        'spatial': (3, 17 * 17 * 7),
        'probabilities': (3, 1008),
    }
    assert all(value.dtype == torch.float32 for value in features.values())
    assert {name: value.shape[1] for name, value in features.items()} == inception.SIZES
    # height, width, channel: element ((h · 17) + w) · 7 + c
    at = torch.tensor([(5 * 17 + 11) * 7 + c for c in range(7)])
    torch.testing.assert_close(features['spatial'][:, at], seen['branch'][:, :7, 5, 11], rtol=0, atol=0)
    assert seen['branch'][:, :7].std() > 0
    without_bias = (features['pool'] @ network.fc.weight.T).softmax(1)
    torch.testing.assert_close(features['probabilities'], without_bias)
    assert network.fc.bias.abs().max() > 1e-3
    assert not torch.allclose(features['probabilities'], (without_bias.log() + network.fc.bias).softmax(1), atol=1e-6)


def test_features_do_not_depend_on_the_batch(inception, photographs):
    together, alone = inception(photographs), inception(photographs[2:])
    for name in together:
        torch.testing.assert_close(together[name][2:], alone[name], rtol=1e-4, atol=1e-5)


def test_neither_tf32_nor_autocast():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = True
        with torch.autocast('cpu', dtype=torch.bfloat16), full_float32(torch.device('cpu')):
            assert (cudnn.allow_tf32, matmul.allow_tf32) == (False, False)
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
        assert (cudnn.allow_tf32, matmul.allow_tf32) == (True, True)
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def test_identity_names_the_weights_and_others_are_warned_of(inception_weights, inception, warnings):
    assert inception.identity.endswith(f'weights sha256 {sha256(inception_weights)[:16]}')
    InceptionFeatures(inception_weights)
    (message,) = warnings
    assert message.endswith("the numbers will not compare with other people's")


def test_missing_weights_name_what_to_fetch_and_where(tmp_path, monkeypatch, inception_weights):
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    with pytest.raises(FileNotFoundError, match=rf'hub/checkpoints/{WEIGHTS_NAME}.*fetch https://.*{WEIGHTS_NAME}'):
        InceptionFeatures()
    with pytest.raises(FileNotFoundError, match=r'none\.pth.*fetch https'):
        InceptionFeatures(tmp_path / 'none.pth')
    cached = tmp_path / 'hub' / 'checkpoints' / WEIGHTS_NAME
    cached.parent.mkdir(parents=True)
    cached.symlink_to(inception_weights)
    assert find_weights() == cached


def test_other_weights_are_refused(tmp_path):
    torch.save({'conv.weight': torch.zeros(2)}, tmp_path / 'other.pth')
    with pytest.raises(ValueError, match=r"other\.pth' does not fit torch-fidelity's Inception: .*: fetch https"):
        InceptionFeatures(tmp_path / 'other.pth')
