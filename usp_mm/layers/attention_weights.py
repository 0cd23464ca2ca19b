"""Attention weights of a block, which fused attention kernels do not return."""

import torch
from timm.layers import AttentionRope, apply_rot_embed_cat
from torch import Tensor


def attention_weights(attn: AttentionRope, x_NLD: Tensor, rope: Tensor | None = None) -> Tensor:
    """Compute softmax(q·kᵀ / √d) of each head from an attention module's own queries and keys (arXiv 1706.03762, eq. 1).

    The module is only read: its results stay what they are.

    Args:
        attn: Attention of a `TransformerBlock`, with one fused layer for queries, keys and values.
        x_NLD: Input of the attention, i.e. the tokens after the block's first norm, float[N, L, D].
        rope: As in `TransformerBlock`, for a module that rotates queries and keys.

    Returns:
        float32[N, heads, L, L] in [0, 1]; row i holds how much token i takes from each token, and sums to one.
    """
    num, length, _ = x_NLD.shape
    assert attn.qkv is not None
    parts = attn.qkv(x_NLD).reshape(num, length, 3, attn.num_heads, attn.head_dim).permute(2, 0, 3, 1, 4)
    q, k = attn.q_norm(parts[0]), attn.k_norm(parts[1])
    if rope is not None:
        q, k = (_rotated(attn, x, rope) for x in (q, k))
    return (q.float() * attn.scale @ k.float().transpose(-2, -1)).softmax(-1)


def _rotated(attn: AttentionRope, x_NHLd: Tensor, rope: Tensor) -> Tensor:
    """Rotate all tokens but the first `num_prefix_tokens`."""
    first = attn.num_prefix_tokens
    rotated = apply_rot_embed_cat(x_NHLd[:, :, first:], rope, half=attn.rotate_half)
    return torch.cat([x_NHLd[:, :, :first], rotated], dim=2)
