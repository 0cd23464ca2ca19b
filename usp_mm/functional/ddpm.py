"""The diffusion forward process (DDPM, arXiv 2006.11239, eq. 4)."""

import torch
from torch import Tensor


def linear_alpha_bar(num_steps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor:
    """ᾱ_t = Π(1 - β_s) of the linear schedule (section 4), float64[num_steps]."""
    return torch.cumprod(1 - torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64), dim=0)


def diffuse(x0: Tensor, alpha_bar: Tensor | float, noise: Tensor) -> Tensor:
    """x_t = √ᾱ·x0 + √(1 - ᾱ)·ε (eq. 4); `alpha_bar` is a number or one per sample, [N]."""
    alpha_bar = torch.as_tensor(alpha_bar, dtype=x0.dtype, device=x0.device)
    alpha_bar = alpha_bar.reshape(-1, *[1] * (x0.ndim - 1))
    return alpha_bar.sqrt() * x0 + (1 - alpha_bar).sqrt() * noise
