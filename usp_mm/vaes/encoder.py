"""The encoder half of a VAE as an ordinary, trainable module (USP section 3.3.1)."""

import torch
from torch import Tensor, nn

from .base import LatentCodec


class VAEEncoder(nn.Module):
    """Images [N, 3, H, W] in [-1, 1] -> moments float32[N, 2C, h, w]; gradients flow, autocast applies.

    Its parameters are those of the codec's VAE, with the names `encoder.…` and `quant_conv.…` of all its formats.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.encoder, self.quant_conv = network.get_submodule('encoder'), network.get_submodule('quant_conv')
        self.requires_grad_(True)

    def forward(self, images: Tensor) -> Tensor:
        moments: Tensor = self.quant_conv(self.encoder(images))
        return moments.float()


def take_encoder(codec: LatentCodec) -> VAEEncoder:
    """Move the encoder out of a codec. The codec's decoder is dropped, so that the codec can only scale latents afterwards.

    Raises:
        ValueError: The codec has no weights, or they are not float32.
    """
    network = codec.network
    if network is None or getattr(network, 'quant_conv', None) is None:
        raise ValueError(
            f"VAE '{codec.name}' has no encoder to train: name one with weights and a posterior, or leave train_vae=False"
        )
    if codec.dtype != torch.float32:
        raise ValueError(f"VAE '{codec.name}' is trained in float32 (under autocast, where that is on), not in {codec.dtype}")
    codec.network = None
    return VAEEncoder(network)
