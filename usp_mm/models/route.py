"""Routed tokens in the training of a denoiser (TREAD, Krause et al., ICCV 2025, arXiv 2501.04765).

Shape legend: N samples, L tokens, K of them kept on the route.
"""

import torch
from torch import Tensor, nn

from .random_keys import SampleKeys


class Route:
    """A span of blocks that in training only a random share of each sample's tokens passes.

    The blocks are those of the slice `blocks[start:end]`. All tokens pass the first `start` blocks; then the tokens that are
    not kept skip the span, and rejoin the others unchanged for the blocks from `end` on. Neither parameters nor names in the
    state dict change, and nothing but the training loss uses a route.

    Args:
        num_layers, length: Depth of the denoiser, and number of its tokens L.
        keep: Share of the tokens that pass the span, in (0, 1]; with 1 all do.
        start: Number of blocks before the span, 0 … num_layers - 1.
        end: Number of blocks before the end of the span; negative ones count from the back, so that with -4 all tokens pass
            the last four blocks. TREAD places its routes from 2 to -4 at every depth.

    Attributes:
        keep, start: As above.
        end: Never negative.
        num_keep: The number K of tokens that are kept, at least 1.

    Raises:
        ValueError: The share or the span is none of these.
    """

    def __init__(self, num_layers: int, length: int, keep: float = 0.5, start: int = 2, end: int = -4) -> None:
        if not 0 < keep <= 1:
            raise ValueError(f'denoiser.route.keep={keep} must be more than 0 and at most 1: it is the share of kept tokens')
        last = end + num_layers if end < 0 else end
        if start % 1 or end % 1 or not 0 <= start < last <= num_layers:
            raise ValueError(
                f'denoiser.route from start={start} to end={end} is no span of the {num_layers} blocks: expected integers with '
                f'0 <= start < end <= {num_layers}, where a negative end counts from the back'
            )
        if (num_keep := round(keep * length)) < 1:
            raise ValueError(f'denoiser.route.keep={keep} keeps none of {length} tokens: set it to {1 / length:.2g} or more')
        self.keep, self.start, self.end, self.length, self.num_keep = keep, start, last, length, num_keep

    def __repr__(self) -> str:
        return f'blocks {self.start + 1} to {self.end} see {self.num_keep} of {self.length} tokens'

    def draw(self, keys: SampleKeys) -> Tensor | None:
        """Draw the kept tokens of each sample, which depend on (seed, epoch, sample) alone.

        Returns:
            Their positions, int64[N, K] in no order; None if all tokens are kept.
        """
        if self.num_keep == self.length:
            return None
        return keys.uniform(self.length, 'route').argsort(dim=1, stable=True)[:, : self.num_keep]

    def inside(self, depth: int) -> bool:
        """Whether only kept tokens leave block number `depth`, 1 … num_layers."""
        return self.num_keep < self.length and self.start < depth < self.end


def fix_lengths(blocks: nn.ModuleList, tokens: Tensor, rope: Tensor | None) -> None:
    """Tell torch.compile, where it compiles the blocks in place, that numbers of tokens are constants.

    Otherwise, it would make one slower graph for any number as soon as it has met two.
    """
    if blocks[0]._compiled_call_impl is None or torch.compiler.is_compiling():
        return
    torch._dynamo.mark_static(tokens, 1)
    if rope is not None:
        torch._dynamo.mark_static(rope, rope.ndim - 2)
