"""Official initialisation of encoder and decoder (USP section 3.1, as in MAE)."""

from torch import nn


def init_vit_weights(root: nn.Module) -> None:
    """Xavier-uniform Linear and (flattened) Conv2d weights, zero Linear biases, identity norms, in place.

    Class and mask tokens are not initialised here: the modules that own them draw them from normal(0, 0.02). A Conv2d bias
    keeps torch's own initialisation, as in the official code.
    """
    for module in root.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.view(module.weight.shape[0], -1))
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm) and module.elementwise_affine:
            module.reset_parameters()
