"""The pretraining decoder (USP section 3.1: 8 blocks, width 512, 16 heads for every encoder)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from usp_mm.functional.masking import gather_tokens
from usp_mm.functional.pos_embed import sincos_table
from usp_mm.layers import LayerNorm, init_vit_weights
from usp_mm.layers.block import BlockParts
from usp_mm.registry import MODELS

from .geometry import latent_geometry, resolve_arch


class DecoderBlock(BlockParts):
    """The shared block with a `forward` of its own, so that torch.compile keeps its shapes apart from the encoder's."""

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L, dim] -> tokens."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


@MODELS.register_module()
class USPDecoder(BaseModule):
    """Predicts a patch for every token from the encoded visible tokens and a learned mask token.

    Its blocks are always of the kind 'plain', whatever kind the encoder has. The arguments are those of `USPViT`; `USP` copies
    them from the backbone's config.
    """

    def __init__(
        self,
        arch: str | dict = 'base',
        vae: str = 'sd-f8d4',
        img_size: int = 224,
        patch_size: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        row, geometry = resolve_arch(arch), latent_geometry(vae, img_size, patch_size)
        dims = row['decoder_dims']
        self.decoder_embed = nn.Linear(row['embed_dims'], dims)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dims))
        table = sincos_table(dims, geometry.grid, cls_token=True)[None].float()
        self.decoder_pos_embed = nn.Parameter(table, requires_grad=False)
        self.decoder_blocks = nn.ModuleList(DecoderBlock(dims, row['decoder_heads']) for _ in range(row['decoder_depth']))
        self.decoder_norm = LayerNorm(dims)
        self.decoder_pred = nn.Linear(dims, geometry.patch_dim)

    def init_weights(self) -> None:
        init_vit_weights(self)
        nn.init.normal_(self.mask_token, std=0.02)
        super().init_weights()

    def forward(self, x: Tensor, restore: Tensor) -> Tensor:
        """Encoded tokens [N, 1 + K, D] and `Mask.restore`, int64[N, L] -> predicted patches [N, L, P·P·C]."""
        x = self.decoder_embed(x)
        hidden = self.mask_token.to(x.dtype).expand(x.shape[0], restore.shape[1] + 1 - x.shape[1], -1)
        tokens = gather_tokens(torch.cat([x[:, 1:], hidden], dim=1), restore)
        x = torch.cat([x[:, :1], tokens], dim=1) + self.decoder_pos_embed
        for block in self.decoder_blocks:
            x = block(x)
        return self.decoder_pred(self.decoder_norm(x))[:, 1:]
