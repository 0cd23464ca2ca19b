"""Whether a data loader gives each process a batch."""

from typing import Any


def check_has_batch(loader: Any, name: str, processes: int) -> None:
    """Raise a ValueError, with the numbers and the fix, unless a data loader gives each process at least one batch."""
    if not hasattr(getattr(loader, 'dataset', None), '__len__'):
        return
    num = len(loader.dataset)
    if num == 0:
        raise ValueError(f'{name}.dataset holds no sample: check its data_root, indices and filter_cfg')
    batches = getattr(loader, 'batch_sampler', None)
    sampler, size = getattr(batches, 'sampler', None), getattr(batches, 'batch_size', None)
    if not isinstance(size, int) or not hasattr(sampler, '__len__') or not hasattr(batches, '__len__'):
        return  # a custom loader, whose number of samples is not known
    if 'Infinite' in type(sampler).__name__ or len(loader) > 0:
        return
    raise ValueError(
        f'{name} has {num} samples, which make no batch of {size} x {processes} process{"es" * (processes > 1)} '
        f'with drop_last=True: set {name}.batch_size to {-(-num // processes)} or less, or {name}.drop_last=False'
    )
