"""The USP encoder: a ViT on VAE latents (USP section 3.1; MAE, arXiv 2111.06377)."""

from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from timm.layers import PatchEmbed
from torch import Tensor, nn

from usp_mm.functional.masking import gather_tokens
from usp_mm.functional.pos_embed import resize_pos_embed, sincos_table
from usp_mm.layers import RotaryPositions, TransformerBlock, attention_weights, block_options, init_vit_weights
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import older_settings
from usp_mm.vaes import build_codec
from usp_mm.vaes.build import build_preset
from usp_mm.vaes.encoder import take_encoder
from usp_mm.vaes.settings import DEFAULT, fold_encoder, vae_settings

from .geometry import latent_geometry, resolve_arch
from .weight_transfer import fit_pos_embed


@MODELS.register_module()
@older_settings(fold_encoder, 'codec')
class USPViT(BaseBackbone):
    """PatchConv, class token, fixed sine-cosine positions, pre-norm blocks, final norm.

    Input: scaled latents [N, C, H, W]; with `encode_images`, images in [-1, 1], or latents that
    `to_latents` made of them.

    Args:
        arch: A preset of `usp_mm.presets.ARCHS`, or a dict of its keys.
        vae: The preset that fixes latent channels, stride and patch size, or a dict of it as `name` and of further settings for
            `encode_images` (path, dtype, …), see `usp_mm.models.LatentDataPreprocessor`. Algorithms take the preset from their
            data preprocessor.
        img_size: Side in pixels of the images that the position table is made for. For other sizes the table is resized.
        patch_size: Latent pixels per token side; None uses the VAE's own.
        out_type: 'cls_token' [N, D]; 'avg_featmap' [N, D], the mean of the patch tokens, normalised by a new `fc_norm`;
            'featmap' [N, D, h, w]; or 'raw' [N, 1 + L, D].
        out_indices: Numbers of the blocks whose output is returned; negative ones count from the end.
        final_norm: Whether the final norm `norm` is applied to the last block's output. By default it is, except with
            'avg_featmap', where `fc_norm` takes its place.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0 at the first.
        frozen_stages: -1 freezes nothing. k ≥ 0 freezes patch embedding, tokens and the first k blocks and keeps them in
            evaluation mode; with k equal to the depth, the norms are frozen too.
        interpolate_mode: 'bicubic' or 'bilinear', how the position table is resized.
        encode_images: False if latents come from the data preprocessor. True makes the frozen VAE the first stage of the
            backbone, so that sliding windows count pixels. Neither adds a key to the state dict.
        train_vae: Whether to train the encoder of that VAE too, as the submodule `vae_encoder` (section 3.3.1); its decoder is
            dropped. Layer-wise decay does not change its learning rate, as in the official parameter groups.
        block: A preset of `usp_mm.presets.BLOCKS`, or a dict of options, see `usp_mm.layers.block_options`. Generators that
            start from this encoder need the same. Rotary positions do not rotate the class token.
        init_cfg: MMEngine's `init_cfg`; dict(type='USPPretrained', checkpoint=…) loads an encoder.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'vae': build_preset}
    OUT_TYPES = ('raw', 'cls_token', 'avg_featmap', 'featmap')

    def __init__(
        self,
        arch: str | dict = 'base',
        vae: str | dict = DEFAULT,
        img_size: int = 224,
        patch_size: int | None = None,
        out_type: str = 'cls_token',
        out_indices: int | Sequence[int] = -1,
        final_norm: bool | None = None,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        interpolate_mode: str = 'bicubic',
        encode_images: bool = False,
        train_vae: bool = False,
        block: str | dict = 'plain',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.arch = resolve_arch(arch)
        vae = vae_settings(vae)
        self.geometry = latent_geometry(vae['name'], img_size, patch_size)
        self.embed_dims, self.num_layers = self.arch['embed_dims'], self.arch['depth']
        if out_type not in self.OUT_TYPES:
            raise ValueError(f"out_type='{out_type}' must be one of {self.OUT_TYPES}")
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate={drop_path_rate} must be from 0 to less than 1')
        self.out_type, self.interpolate_mode = out_type, interpolate_mode
        self.out_indices = self._layer_indices(out_indices)
        if not -1 <= frozen_stages <= self.num_layers:
            raise ValueError(
                f'frozen_stages={frozen_stages} must lie in -1 … {self.num_layers}, the depth: set '
                f'model.backbone.frozen_stages={self.num_layers}, all blocks'
            )
        self.frozen_stages = frozen_stages
        self.codec = build_codec(vae) if encode_images else None
        if train_vae and (not encode_images or frozen_stages >= 0):
            raise ValueError(
                f'train_vae=True needs encode_images=True, with the VAE to train, and frozen_stages=-1, got {encode_images}, '
                f'{frozen_stages}'
            )
        self.vae_encoder = take_encoder(self.codec) if train_vae and self.codec is not None else None

        dims, geometry = self.embed_dims, self.geometry
        self.patch_embed = PatchEmbed(None, geometry.patch_size, geometry.channels, dims, strict_img_size=False, bias=True)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dims))
        table = sincos_table(dims, geometry.grid, cls_token=True)[None].float()
        self.pos_embed = nn.Parameter(table, requires_grad=False)
        options, num_heads = block_options(block), self.arch['num_heads']
        self.rope = RotaryPositions(dims // num_heads, geometry.grid) if options.rope else None
        self.blocks = nn.ModuleList(
            TransformerBlock(dims, num_heads, drop_path=rate if drop_path_rate else None, options=options)
            for rate in torch.linspace(0, drop_path_rate, self.num_layers, device='cpu').tolist()  # also in a model on meta
        )
        final_norm = out_type != 'avg_featmap' if final_norm is None else final_norm
        self.norm = options.norm_layer(dims) if final_norm else nn.Identity()
        self.fc_norm = options.norm_layer(dims) if out_type == 'avg_featmap' else nn.Identity()
        self._register_load_state_dict_pre_hook(self._resize_loaded_pos_embed)
        self._freeze()

    def _layer_indices(self, indices: int | Sequence[int]) -> tuple[int, ...]:
        depth = self.num_layers
        indices = (indices,) if isinstance(indices, int) else tuple(indices)
        for index in indices:
            if not -depth <= index < depth:
                raise ValueError(f'out_indices={indices}: {index} is not a block of a {depth}-block encoder')
        return tuple(index % depth for index in indices)

    def init_weights(self) -> None:
        """Apply the official initialisation, then `init_cfg`."""
        for module in (self.patch_embed, self.blocks, self.norm, self.fc_norm):  # and not the VAE
            init_vit_weights(module)
        nn.init.normal_(self.cls_token, std=0.02)
        super().init_weights()

    # ------------------------------------------------------------------ forward

    def forward(self, x: Tensor, layers: Sequence[int] | None = None) -> tuple[Tensor, ...]:
        """Outputs of the blocks `out_indices`, each in the form `out_type`; with `layers`, those of `tokens_after`."""
        indices = self.out_indices if layers is None else [k - 1 for k in layers]
        x, grid = self._embed(x)
        x = torch.cat([self._class_token(x.shape[0]), x], dim=1)
        rope = None if self.rope is None else self.rope(grid)
        outs = {}
        for i, block in enumerate(self.blocks):
            x = block(x, rope)
            if i in indices:
                outs[i] = self.norm(x) if i == self.num_layers - 1 else x
        if layers is None:
            return tuple(self._format(out, grid) for out in outs.values())
        return tuple(outs[i] for i in indices)

    def tokens_after(self, x: Tensor, layers: Sequence[int]) -> tuple[Tensor, ...]:
        """All tokens after blocks, whatever `out_type` is; it changes nothing in the module, so that threads may share it.

        Args:
            x: Input as of `forward`.
            layers: Numbers of blocks, 1 … depth, in any order. The output of the last block is taken after the final norm.

        Returns:
            float[N, 1 + L, D] for each of `layers`, the class token first.
        """
        found: tuple[Tensor, ...] = self(x, layers)
        return found

    def attention_weights(self, x: Tensor, layer: int) -> tuple[Tensor, tuple[int, int]]:
        """Attention weights of one block, see `usp_mm.layers.attention_weights`.

        Args:
            x: Input as of `forward`.
            layer: Number of the block, 1 … depth.

        Returns:
            float32[N, heads, 1 + L, 1 + L], the class token first, and the patch tokens' rows and columns.

        Raises:
            ValueError: There is no such block.
        """
        if not 1 <= layer <= self.num_layers:
            raise ValueError(f'layer {layer} is not there: the model has blocks 1 to {self.num_layers}')
        x, grid = self._embed(x)
        x = torch.cat([self._class_token(x.shape[0]), x], dim=1)
        rope = None if self.rope is None else self.rope(grid)
        for before in self.blocks[: layer - 1]:
            x = before(x, rope)
        block: Any = self.blocks[layer - 1]
        return attention_weights(block.attn, block.norm1(x), rope), grid

    def to_latents(self, x: Tensor) -> Tensor:
        """Encode images [N, 3, H, W] to scaled latents [N, C, h, w] with the VAE; latents are returned unchanged."""
        if self.codec is None or self.codec.kind_of(x) == 'latents':
            return x
        codec = self.codec.to(x.device)
        return codec.mode(codec.encode(x) if self.vae_encoder is None else self.vae_encoder(x))

    def forward_visible(self, x: Tensor, keep: Tensor) -> Tensor:
        """Encode only the visible tokens: latents [N, C, H, W] and their numbers int64[N, K] -> tokens [N, 1 + K, D]."""
        expected = self.geometry.latent_size
        if x.shape[-2:] != (expected, expected):
            raise ValueError(
                f'latents are {x.shape[-2]}x{x.shape[-1]} but the backbone pretrains on {expected}x{expected} '
                f'(img_size={self.geometry.img_size}): make img_size and the data agree'
            )
        x = gather_tokens(self._embed(x)[0], keep)
        x = torch.cat([self._class_token(x.shape[0]), x], dim=1)
        rope = None if self.rope is None else self.rope(keep=keep)
        for block in self.blocks:
            x = block(x, rope)
        return self.norm(x)

    def _class_token(self, num: int) -> Tensor:
        return (self.cls_token + self.pos_embed[:, :1]).expand(num, -1, -1)

    def _embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Patch tokens with positions, [N, L, D], and their grid."""
        x = self.to_latents(x)
        patch = self.geometry.patch_size
        grid = (x.shape[-2] // patch, x.shape[-1] // patch)
        table = resize_pos_embed(self.pos_embed, self.geometry.grid, grid, self.interpolate_mode)
        return self.patch_embed(x) + table[:, 1:], grid

    def _format(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        if self.out_type == 'raw':
            return x
        if self.out_type == 'cls_token':
            return x[:, 0]
        if self.out_type == 'avg_featmap':
            return self.fc_norm(x[:, 1:].mean(dim=1))
        return x[:, 1:].transpose(1, 2).reshape(x.shape[0], -1, *grid)

    # ------------------------------------------------------------------ freezing, loading, layer decay

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        frozen = [self.patch_embed, *self.blocks[: self.frozen_stages]]
        return [*frozen, self.norm, self.fc_norm] if self.frozen_stages == self.num_layers else frozen

    def _freeze(self) -> None:
        for module in self._frozen_modules():
            module.requires_grad_(False)
        if self.frozen_stages >= 0:
            self.cls_token.requires_grad_(False)

    def train(self, mode: bool = True) -> 'USPViT':
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _resize_loaded_pos_embed(self, state_dict: dict, prefix: str, *args: Any) -> None:
        """Fit a checkpoint's square position table to this model's grid."""
        name = prefix + 'pos_embed'
        table = state_dict.get(name)
        if table is not None:
            state_dict[name] = fit_pos_embed(table, self.geometry.grid, self.interpolate_mode)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(layer of a parameter, number of layers) for layer-wise learning-rate decay (Table 13).

        Patch embedding and tokens are layer 0, block i is layer i + 1, and everything after the last block is the last layer,
        depth + 1. A trained VAE counts as the last layer too, so that its learning rate does not decay.
        """
        num_layers = self.num_layers + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name[len(prefix) :]
        if name.startswith(('cls_token', 'pos_embed', 'patch_embed')):
            return 0, num_layers
        if name.startswith('blocks.'):
            return int(name.split('.')[1]) + 1, num_layers
        return num_layers - 1, num_layers
