"""Seeds derived from keys such as (seed, epoch, sample), without state."""

import random

import numpy as np
import torch


def derive_seed(*key: int) -> int:
    """Derive a 63-bit seed from integers in 0 … 2^64 - 1; different keys give unrelated seeds."""
    words = [len(key), *(word for number in key for word in divmod(int(number), 1 << 32))]  # 32 bits each
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def seed_all(*key: int) -> None:
    """Seed the generators of `random`, NumPy and PyTorch of this process from `key`."""
    seed = derive_seed(*key)
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.manual_seed(seed)
