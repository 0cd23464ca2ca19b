"""What ADM's evaluator sees of an image: torch-fidelity's port of the Inception network of 2015.

ADM (arXiv 2105.05233) takes three things from the TensorFlow graph: `pool_3`, the first 7 channels of `mixed_6/conv` for
sFID (Nash et al., arXiv 2103.03841), and, for the inception score, the softmax of pool_3 times the weights of the last
layer **without its bias** (it multiplies by the matrix itself, where the graph's own softmax would add the bias). The last
is torch-fidelity's feature 'logits_unbiased'.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from usp_mm.files import sha256
from usp_mm.functional.precision import tf32
from usp_mm.strict_loading import explain_misfit
from usp_mm.weight_files import read_weights

#: torch-fidelity's file, in PyTorch's own cache if it was ever used. The name carries the first digits of its SHA-256.
WEIGHTS_NAME = 'weights-inception-2015-12-05-6726825d.pth'
WEIGHTS_URL = f'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}'
WEIGHTS_HASH = '6726825d'


def find_weights(path: str | Path | None = None) -> Path:
    """`path`, or the file in PyTorch's cache (`$TORCH_HOME/hub/checkpoints`). Nothing is downloaded.

    Raises:
        FileNotFoundError: neither; names what to fetch and where to put it.
    """
    found = Path(path) if path is not None else Path(torch.hub.get_dir()) / 'checkpoints' / WEIGHTS_NAME
    if not found.is_file():
        raise FileNotFoundError(
            f"no Inception weights at '{found}': fetch {WEIGHTS_URL} and put it there, "
            'or say where it is (ADMMetrics: inception=FILE, tools/evaluate.py: --inception FILE)'
        )
    return found


class InceptionFeatures(nn.Module):
    """uint8 images [N, 3, H, W], RGB, of any size -> float32 pool [N, 2048], spatial [N, 2023], probabilities [N, 1008].

    The resize to 299 is TensorFlow 1's, spatial features are flattened as height, width, channel, and arithmetic is
    float32 on every device (no TF32, no autocast).

    Args:
        weights: `WEIGHTS_NAME`; by default the one in PyTorch's cache.

    Attributes:
        identity: names the weights, for reports and cached statistics.

    Raises:
        FileNotFoundError: no weights.
        ValueError: the file holds other weights.
        ModuleNotFoundError: torch-fidelity is not installed.
    """

    SIZES = dict(pool=2048, spatial=2023, probabilities=1008)

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = find_weights(weights)
        digest = sha256(path)
        if not digest.startswith(WEIGHTS_HASH):
            MMLogger.get_current_instance().warning(
                f'{path} is not {WEIGHTS_NAME} (its SHA-256 starts with {digest[:8]}): '
                "the numbers will not compare with other people's"
            )
        self.identity = f'Inception 2015 (torch-fidelity), weights sha256 {digest[:16]}'
        self.network = _load_network(path)
        self._branch: Tensor | None = None
        self.network.get_submodule('Mixed_6d.branch1x1').register_forward_hook(self._keep_branch)

    def _keep_branch(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self._branch = output

    @torch.no_grad()
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        with full_float32(images.device):
            pool, logits = self.network(images)
        branch, self._branch = self._branch, None
        assert branch is not None
        spatial = branch[:, :7].permute(0, 2, 3, 1).flatten(1)
        return dict(pool=pool, spatial=spatial, probabilities=logits.softmax(1))


def _load_network(path: Path) -> nn.Module:
    """torch-fidelity's network with the weights of a file."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError('the ADM metrics need torch-fidelity: `pip install torch-fidelity`') from error
    checked = io.BytesIO()  # torch-fidelity unpickles what it is given, so it is given what was read as data
    torch.save(read_weights(path), checked)
    checked.seek(0)
    with explain_misfit(path, "torch-fidelity's Inception", f'fetch {WEIGHTS_URL}'):
        return FeatureExtractorInceptionV3('inception', ['2048', 'logits_unbiased'], feature_extractor_weights_path=checked)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Neither TF32 nor autocast in the block."""
    with tf32(False), torch.autocast(device.type, enabled=False):
        yield
