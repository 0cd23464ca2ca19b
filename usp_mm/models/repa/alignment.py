"""REPA's alignment loss (arXiv 2410.06940, equation 8).

Shape legend: N samples, L tokens, D width of the denoiser, E width of the teacher.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from usp_mm.layers import init_vit_weights
from usp_mm.presets import lookup

from ..geometry import LatentGeometry
from ..route import Route
from .projectors import PROJECTORS, ConvProjector, spatial_norm
from .teacher import build_teacher

RESIZES = ('bilinear', 'bicubic', 'area')


class REPA(BaseModule):
    """Projects tokens of a denoiser and compares them with the tokens of a frozen teacher for the clean image.

    Its only parameters are the projector's. They are trained with the denoiser, saved in its checkpoint as `repa.projector.*`
    and not used in sampling. The teacher is in no state dict, and its weights are not loaded before training starts.

    Args:
        geometry, embed_dims, num_layers: Latent shapes, width and depth of the denoiser.
        teacher: Config of the teacher, see `build_teacher`.
        depth: Number of the denoiser's block, 1 … num_layers, whose output tokens are aligned.
        weight: Weight of the alignment in the loss.
        projector: 'mlp' (REPA) or 'conv' (iREPA, arXiv 2512.10794).
        hidden_dims: Width of the MLP's hidden layers, by default 2048.
        resize: 'bilinear', 'bicubic' or 'area' resizes the teacher's token grid to the denoiser's. With None the grids must be
            the same.
        spatial_norm: γ of iREPA's normalisation of the teacher's tokens; None omits it.

    Raises:
        ValueError: A name is unknown, there is no such block, or the grids differ.
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
        """Initialise the projector like the denoiser's linear layers, as REPA does."""
        init_vit_weights(self.projector)

    def check_grid(self, grid: tuple[int, int] | None) -> None:
        """Raise a ValueError if the teacher's token grid differs from the denoiser's and `resize` is None.

        Args:
            grid: The teacher's grid; None, if it is not known yet, passes.
        """
        if grid is not None and tuple(grid) != self.grid and self.resize is None:
            ours, theirs = (f'{h}x{w}' for h, w in (self.grid, grid))
            raise ValueError(
                f"teacher '{self.teacher.name}' sees {theirs} tokens (images at {self.teacher.size} pixels), the denoiser "
                f"{ours}: set repa.teacher.size so that they agree, or repa.resize='bilinear'"
            )

    def check_route(self, route: Route | None) -> None:
        """Raise a ValueError if tokens are missing where the projector needs the whole grid.

        Inside a route only its kept tokens are aligned, each with the teacher's token of the same place. That needs a projector
        of single tokens.
        """
        if route is not None and route.inside(self.depth) and isinstance(self.projector, ConvProjector):
            raise ValueError(
                f'repa.depth={self.depth} lies inside denoiser.route, from {route.start} to {route.end}, where tokens are '
                f"missing that projector='conv' needs: set repa.depth to at most {route.start} or at least {route.end}, or "
                "projector='mlp'"
            )

    def prepare(self, device: torch.device | str) -> None:
        """Load the teacher and run it on an empty image, so that problems show before training.

        Raises:
            FileNotFoundError: There are no weights.
            ValueError: The weights are those of another model, or the tokens have an unexpected width or grid.
        """
        self.teacher.to(device).probe()
        self.check_grid(self.teacher.grid)

    @torch.no_grad()
    def targets(self, images: Tensor | None, tokens: Tensor | None) -> Tensor:
        """Target tokens that the projected tokens are compared with, from images or from cached tokens.

        Args:
            images: RGB images in [0, 255], [N, 3, H, W], with the same crop and flip as the latents; not used with `tokens`.
            tokens: The teacher's tokens from a cache, [N, L, E].

        Returns:
            float32[N, L, E].

        Raises:
            ValueError: Neither is given, or the tokens have another width or grid.
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
        """Alignment loss: the negative cosine similarity, averaged over tokens.

        Args:
            hidden: The denoiser's tokens after block `depth`, [N, L, D], or some of them.
            targets: The same tokens from `targets`, [N, L, E].

        Returns:
            float32[N], in [-1, 1].
        """
        return -F.cosine_similarity(self.projector(hidden).float(), targets, dim=-1).mean(1)
