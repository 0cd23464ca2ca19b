"""Networks of the generators: DiT and SiT (arXiv 2212.09748, 2401.08740) with USP's norms (arXiv 2503.06132, section 2.3).

Shape legend: N batch, C latent channels, h×w latent, L tokens, D width.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from usp_mm.functional.masking import gather_tokens, scatter_tokens
from usp_mm.functional.patchify import unpatchify
from usp_mm.functional.pos_embed import sincos_table
from usp_mm.layers import FinalLayer, ModulatedBlock, RotaryPositions, block_options, init_vit_weights
from usp_mm.layers.embedders import LabelEmbedder, PatchEmbedder, TimestepEmbedder
from usp_mm.layers.modulation import conditioning
from usp_mm.presets import lookup
from usp_mm.registry import MODELS

from .geometry import latent_geometry, resolve_arch
from .route import Route, fix_lengths

_GIVEN: Any = None  # placeholder for arguments that the denoiser itself passes
ACTIVATIONS = {'gelu': nn.GELU, 'gelu_tanh': partial(nn.GELU, approximate='tanh')}


@MODELS.register_module()
class DiT(BaseModule):
    """PatchConv, fixed sine-cosine positions, modulated blocks, and a modulated linear layer back to patches.

    State-dict names are those of the official DiT and SiT. With `block='lightning'` they are those of LightningDiT (arXiv
    2501.01423), whose norms have a scale.

    Args:
        arch: A preset of `usp_mm.presets.ARCHS`, or a dict of its keys.
        vae: The preset that fixes latent channels, stride and patch size. The generator takes it from its data preprocessor.
        img_size: Side in pixels of the images that the position table is made for.
        patch_size: Latent pixels per token side; None uses the VAE's own.
        num_classes: Number of classes. Labels are 0 … num_classes - 1, and `null_label` = num_classes means "no class".
        class_dropout: Probability that training drops the class of a sample. With 0 there is no label for "no class".
        norm_affine: Whether norm1 and norm2 have USP's trainable scale and shift (Table 8b); plain DiT has none.
        act: Activation of 'gelu' MLPs. The official networks use 'gelu_tanh', although the encoder uses 'gelu'.
        learn_sigma: Whether to predict twice the channels, with the variance in the second half.
        gate_bias: Initial bias of the residual gates, 0 (adaLN-Zero) or 1 (appendix A).
        block: A preset of `usp_mm.presets.BLOCKS`, or a dict of options, see `usp_mm.layers.block_options`. It must be the
            same as in the encoder that the network starts from.
        with_cp: Whether the backward pass recomputes the blocks' activations instead of keeping them in memory.
        route: Arguments of `Route` except those that describe the denoiser: dict(keep=0.5, start=2, end=-4). Training then lets
            only some tokens pass some blocks (TREAD, arXiv 2501.04765). None lets all pass.
        init_cfg: MMEngine's `init_cfg`; dict(type='USPPretrained', checkpoint=…) starts from a pretrained encoder.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'route': partial(Route, _GIVEN, _GIVEN)}
    #: Whether `forward` accepts `rows`.
    shares_conditions = True
    #: Weight [depth·6·D, D] and bias of the modulation of all blocks, set only within `sampling_weights`.
    stacked_modulation: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        arch: str | dict = 'base',
        vae: str = 'sd-f8d4',
        img_size: int = 256,
        patch_size: int | None = None,
        num_classes: int = 1000,
        class_dropout: float = 0.1,
        norm_affine: bool = True,
        act: str = 'gelu_tanh',
        learn_sigma: bool = True,
        gate_bias: float = 0.0,
        block: str | dict = 'plain',
        with_cp: bool = False,
        route: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not 0 <= class_dropout < 1:
            raise ValueError(f'class_dropout={class_dropout} must lie in [0, 1)')
        self.arch = resolve_arch(arch)
        self.geometry = latent_geometry(vae, img_size, patch_size)
        self.embed_dims, self.num_layers = self.arch['embed_dims'], self.arch['depth']
        self.num_classes, self.class_dropout, self.null_label = num_classes, class_dropout, num_classes
        self.learn_sigma, self.with_cp = learn_sigma, with_cp
        geometry, dims = self.geometry, self.embed_dims
        tokens = geometry.grid[0] * geometry.grid[1]
        self.route = None if route is None else Route(self.num_layers, tokens, **route)

        self.x_embedder = PatchEmbedder(geometry.channels, dims, geometry.patch_size)
        self.t_embedder = TimestepEmbedder(dims)
        self.y_embedder = LabelEmbedder(num_classes, dims, null=class_dropout > 0)
        self.pos_embed = nn.Parameter(sincos_table(dims, geometry.grid)[None].float(), requires_grad=False)
        self.options, self.act = block_options(block), act
        options, num_heads = self.options, self.arch['num_heads']
        self.rope = RotaryPositions(dims // num_heads, geometry.grid) if options.rope else None
        kinds = dict(act_layer=lookup(ACTIVATIONS, act, 'act'), norm_affine=norm_affine, gate_bias=gate_bias, options=options)
        self.blocks = nn.ModuleList(ModulatedBlock(dims, num_heads, **kinds) for _ in range(self.num_layers))
        self.final_layer = FinalLayer(dims, geometry.patch_dim * (2 if learn_sigma else 1), options)

    @property
    def out_channels(self) -> int:
        """Number of channels that `forward` returns."""
        return self.geometry.channels * (2 if self.learn_sigma else 1)

    def init_weights(self) -> None:
        """Official initialisation (blocks are the identity, the output is 0), then whatever `init_cfg` says."""
        init_vit_weights(self)
        assert self.x_embedder.proj.bias is not None
        nn.init.zeros_(self.x_embedder.proj.bias)
        self.t_embedder.init_normal()
        self.y_embedder.init_normal()
        for block in self.blocks:
            assert isinstance(block, ModulatedBlock)
            block.init_modulation()
        self.final_layer.init_zero()
        super().init_weights()

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        y: Tensor,
        return_hidden: Sequence[int] | None = None,
        rows: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tensor | tuple[Tensor, dict[int, Tensor]]:
        """Predict from noisy latents.

        Args:
            x: Scaled noisy latents, float[N, C, h, w].
            t: Steps 0 … 999 (DiT) or times in [0, 1] (SiT), [N].
            y: Labels, int64[N].
            return_hidden: Numbers k of blocks, 1 … depth; the tokens after block k are returned too.
            rows: int64[N], for sampling, where samples share conditions. Sample i has the time and label number `rows[i]` of
                `t`, [K] or [1], and `y`, [K], and the modulation is computed only once for each of the K conditions.
            keep: int64[N, K], for training with a `route`: positions of the K tokens of each sample that pass its blocks.

        Returns:
            The prediction [N, out_channels, h, w]; with `return_hidden`, a tuple of it and {k: tokens [N, L, D]}, but inside
            the route only the kept tokens, [N, K, D].

        Raises:
            ValueError: The latents do not have the size of the position table, there is no block k, or there is no route for
                `keep`.
        """
        self._check(x, return_hidden, keep)
        tokens = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t) + self.y_embedder(y)
        rope = all_positions = None if self.rope is None else self.rope()
        start, end = (None, None) if keep is None or self.route is None else (self.route.start, self.route.end)
        hidden: dict[int, Tensor] = {}
        *vectors, last = self._modulation(c, rows)
        recompute = self.with_cp and torch.is_grad_enabled()
        for k, block in enumerate(self.blocks, start=1):
            if keep is not None and k - 1 == start:
                whole, tokens = tokens, gather_tokens(tokens, keep)
                rope = None if self.rope is None else self.rope(keep=keep)
            if self.route is not None:
                fix_lengths(self.blocks, tokens, rope)
            inputs = (tokens, c, rope, vectors[k - 1])
            tokens = checkpoint(block, *inputs, use_reentrant=False) if recompute else block(*inputs)
            if keep is not None and k == end:
                tokens, rope = scatter_tokens(whole, keep, tokens), all_positions
            if return_hidden and k in return_hidden:
                hidden[k] = tokens
        out = self._output(unpatchify(self.final_layer(tokens, c, last), self.geometry.patch_size, self.geometry.grid))
        return out if return_hidden is None else (out, hidden)

    def _modulation(self, c: Tensor, rows: Tensor | None) -> Sequence[Tensor | None]:
        """Modulation vectors of all blocks, [N, 6·D] each, and of the last layer, [N, 2·D].

        In training all are None and each block computes its own, so that checkpointing need not keep them. One product for
        all blocks would copy their weights into one tensor at every step: 223 million numbers for arch 'xl', 0.9 GB in float32.
        """
        if rows is None and torch.is_grad_enabled():
            return [None] * (self.num_layers + 1)
        if self.stacked_modulation is None:
            networks: list[Any] = [*(block.adaLN_modulation for block in self.blocks), self.final_layer.adaLN_modulation]
            vectors = [conditioning(network, c) for network in networks]
        else:
            weight, bias = self.stacked_modulation
            blocks = conditioning(lambda c: F.linear(F.silu(c), weight, bias), c)
            vectors = [*blocks.chunk(self.num_layers, dim=1), conditioning(self.final_layer.adaLN_modulation, c)]
        return vectors if rows is None else [one.index_select(0, rows) for one in vectors]

    def _output(self, out: Tensor) -> Tensor:
        return out

    def _check(self, x: Tensor, return_hidden: Sequence[int] | None, keep: Tensor | None) -> None:
        if keep is not None and self.route is None:
            raise ValueError('`keep` chooses the tokens that pass a route, but the denoiser has none: set denoiser.route')
        expected = (self.geometry.channels, self.geometry.latent_size, self.geometry.latent_size)
        if tuple(x.shape[1:]) != expected:
            raise ValueError(
                f'latents are {tuple(x.shape[1:])}, but {type(self).__name__} is built for {expected} '
                f'(img_size={self.geometry.img_size}): make denoiser.img_size, the VAE and the data agree'
            )
        return_hidden = return_hidden or ()
        for k in return_hidden:
            if not 1 <= k <= self.num_layers:
                raise ValueError(f'return_hidden={list(return_hidden)}: {k} is not a block from 1 to {self.num_layers}')


@MODELS.register_module()
class SiT(DiT):
    """DiT whose `forward` drops the variance half of the output, which official checkpoints have but flow matching ignores."""

    @property
    def out_channels(self) -> int:
        return self.geometry.channels

    def _output(self, out: Tensor) -> Tensor:
        return out[:, : self.geometry.channels]
