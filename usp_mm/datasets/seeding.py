"""Seeds derived from keys such as (seed, epoch, sample), without state."""

import random

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """A 63-bit seed from non-negative integers; keys that differ anywhere give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def seed_all(*key: int) -> None:
    """Seed the generators of `random`, NumPy and PyTorch of this process from `key`."""
    seed = derive_seed(*key)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
