"""The features of ADM's evaluator, from torch-fidelity's port of the Inception network of 2015.

ADM (arXiv 2105.05233) takes three features from the TensorFlow graph: `pool_3`; the first 7 channels of `mixed_6/conv` for
sFID (Nash et al., arXiv 2103.03841); and, for the inception score, the softmax of pool_3 times the weights of the last
layer **without its bias** (ADM multiplies by the matrix itself, whereas the graph's own softmax adds the bias). For the last,
torch-fidelity has the feature 'logits_unbiased'.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from usp_mm.fileio.atomic import sha256
from usp_mm.fileio.strict_loading import explain_misfit
from usp_mm.fileio.weights import read_weights
from usp_mm.functional.precision import tf32

#: torch-fidelity's file, which is in PyTorch's cache if torch-fidelity was used. The name ends with digits of its SHA-256.
WEIGHTS_NAME = 'weights-inception-2015-12-05-6726825d.pth'
WEIGHTS_URL = f'https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS_NAME}'
WEIGHTS_HASH = '6726825d'


def find_weights(path: str | Path | None = None) -> Path:
    """Find the weights at `path`, or by default in PyTorch's cache (`$TORCH_HOME/hub/checkpoints`). Nothing is downloaded.

    Raises:
        FileNotFoundError: There is no such file; the message names the file to fetch and where to put it.
    """
    found = Path(path) if path is not None else Path(torch.hub.get_dir()) / 'checkpoints' / WEIGHTS_NAME
    if not found.is_file():
        raise FileNotFoundError(
            f"no Inception weights at '{found}': fetch {WEIGHTS_URL} and put it there, "
            'or say where it is (ADMMetrics: inception=FILE, usp evaluate: --inception FILE)'
        )
    return found


class InceptionFeatures(nn.Module):
    """RGB images uint8[N, 3, H, W] of any size -> float32 pool [N, 2048], spatial [N, 2023], probabilities [N, 1008].

    Images are resized to 299 pixels as TensorFlow 1 does, spatial features are flattened in the order height, width, channel,
    and all arithmetic is in float32 on every device (no TF32, no autocast).

    Args:
        weights: Path of the file `WEIGHTS_NAME`; by default the one in PyTorch's cache.
        channels_last: Whether convolutions work in this memory format, which is faster and changes the rounding of float32.

    Attributes:
        identity: Name of the weights, for reports and cached statistics.

    Raises:
        FileNotFoundError: There are no weights.
        ValueError: The file holds weights of another network.
        ModuleNotFoundError: torch-fidelity is not installed.
    """

    SIZES = dict(pool=2048, spatial=2023, probabilities=1008)

    def __init__(self, weights: str | Path | None = None, channels_last: bool = False) -> None:
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
        if channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
    checked = io.BytesIO()  # torch-fidelity unpickles any file, so it only gets tensors that were read safely
    torch.save(read_weights(path), checked)
    checked.seek(0)
    with explain_misfit(path, "torch-fidelity's Inception", f'fetch {WEIGHTS_URL}'):
        return FeatureExtractorInceptionV3('inception', ['2048', 'logits_unbiased'], feature_extractor_weights_path=checked)


@contextmanager
def full_float32(device: torch.device) -> Iterator[None]:
    """Context without TF32 and autocast."""
    with tf32(False), torch.autocast(device.type, enabled=False):
        yield
