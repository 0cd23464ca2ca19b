"""REPA's term of the loss (arXiv 2410.06940, equation 8).

Shape legend: N samples, L tokens, D width of the denoiser, E width of the teacher.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from usp_mm.layers import init_vit_weights
from usp_mm.presets import lookup

from ..geometry import LatentGeometry
from .projectors import PROJECTORS, spatial_norm
from .teacher import build_teacher

RESIZES = ('bilinear', 'bicubic', 'area')


class REPA(BaseModule):
    """Projects tokens of a denoiser and compares them with those of a frozen teacher on the clean image.

    Its only parameters are the projector's: they train with the denoiser, are in its checkpoint as `repa.projector.*`, and
    sampling has no use for them. The teacher is in no state dict, and nothing of it is loaded before training starts.

    Args:
        geometry, embed_dims, num_layers: of the denoiser.
        teacher: see `build_teacher`.
        depth: number of blocks passed, 1 … num_layers, after which tokens are taken.
        weight: of the term in the loss.
        projector: 'mlp' (REPA) or 'conv' (iREPA, arXiv 2512.10794).
        hidden_dims: of the MLP, by default 2048.
        resize: 'bilinear', 'bicubic' or 'area': bring the teacher's grid of tokens to the denoiser's; None: they must agree.
        spatial_norm: γ of iREPA's normalisation of the teacher's tokens; None leaves it out.

    Raises:
        ValueError: an unknown name, a block that there is not, or grids that differ.
    """

    def __init__(
        self,
        geometry: LatentGeometry,
        embed_dims: int,
        num_layers: int,
        teacher: str | dict = 'dinov2-b',
        depth: int = 8,
        weight: float = 0.5,
        projector: str = 'mlp',
        hidden_dims: int | None = None,
        resize: str | None = None,
        spatial_norm: float | None = None,
    ) -> None:
        super().__init__()
        if not 1 <= depth <= num_layers:
            raise ValueError(f'repa.depth={depth} is not a block of the denoiser: it has 1 to {num_layers}')
        if not weight >= 0:
            raise ValueError(f'repa.weight={weight} must be 0 or more')
        if resize is not None:
            lookup(dict.fromkeys(RESIZES), resize, 'repa.resize')
        if projector == 'conv' and hidden_dims is not None:
            raise ValueError(f"repa.hidden_dims={hidden_dims} is of projector='mlp': 'conv' has no hidden layer")
        if hidden_dims is not None and hidden_dims < 1:
            raise ValueError(f'repa.hidden_dims={hidden_dims} must be at least 1')
        self.depth, self.weight, self.resize, self.spatial_norm = depth, weight, resize, spatial_norm
        self.grid = geometry.grid
        self.teacher = build_teacher(teacher, geometry.img_size)
        self.check_grid(self.teacher.grid)
        project = lookup(PROJECTORS, projector, 'repa.projector')
        with torch.random.fork_rng(devices=[]):  # the denoiser's random start is the same with and without REPA
            self.projector = project(embed_dims, self.teacher.dim, self.grid, hidden_dims or 2048)

    def init_weights(self) -> None:
        """As REPA: that of the denoiser's linear layers."""
        init_vit_weights(self.projector)

    def check_grid(self, grid: tuple[int, int] | None) -> None:
        """ValueError unless the teacher's grid of tokens (None: not known yet) is the denoiser's, or is to be resized."""
        if grid is not None and tuple(grid) != self.grid and self.resize is None:
            ours, theirs = (f'{h}x{w}' for h, w in (self.grid, grid))
            raise ValueError(
                f"teacher '{self.teacher.name}' sees {theirs} tokens (images at {self.teacher.size} pixels), the denoiser "
                f"{ours}: set repa.teacher.size so that they agree, or repa.resize='bilinear'"
            )

    def prepare(self, device: torch.device | str) -> None:
        """Load the teacher and try it on an empty image, so that what is wrong with it shows before training.

        Raises:
            FileNotFoundError: no weights.
            ValueError: weights of another model, or tokens of another width or grid than expected.
        """
        self.teacher.to(device).probe()
        self.check_grid(self.teacher.grid)

    @torch.no_grad()
    def targets(self, images: Tensor | None, tokens: Tensor | None) -> Tensor:
        """What the projected tokens are to be like.

        Args:
            images: [N, 3, H, W], RGB in [0, 255], of the same crop and flip as the latents; or
            tokens: [N, L, E], the teacher's, from a cache.

        Returns:
            float32[N, L, E].

        Raises:
            ValueError: neither, or tokens of another width or grid.
        """
        if tokens is None:
            if images is None:
                raise ValueError(
                    "model.repa needs images or the teacher's tokens beside the latents: use a data set of images, or a latent "
                    'cache with `images` (the folder it was written from) or `teacher` (tokens that were cached too)'
                )
            tokens = self.teacher.tokens(images)
        tokens = tokens.float()
        side = round(tokens.shape[1] ** 0.5)
        if tokens.shape[2] != self.teacher.dim:
            raise ValueError(
                f"the tokens have width {tokens.shape[2]}, teacher '{self.teacher.name}' has {self.teacher.dim}: "
                'name the teacher whose tokens were cached'
            )
        self.check_grid((side, side))
        if self.spatial_norm is not None:
            tokens = spatial_norm(tokens, self.spatial_norm)
        if (side, side) != self.grid:
            map_ = tokens.transpose(1, 2).unflatten(2, (side, side))
            tokens = F.interpolate(map_, self.grid, mode=str(self.resize)).flatten(2).transpose(1, 2)
        return tokens

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean over tokens of the negative cosine: [N, L, D] after block `depth`, [N, L, E] -> float32[N], in [-1, 1]."""
        return -F.cosine_similarity(self.projector(hidden).float(), targets, dim=-1).mean(1)
