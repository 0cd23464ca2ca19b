"""Check and adapt the settings of data loaders."""

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


def without_workers(loader: Any) -> Any:
    """A data loader's config without what torch refuses if `num_workers=0`; anything else as it is."""
    if not isinstance(loader, dict) or loader.get('num_workers'):
        return loader
    off = dict(persistent_workers=False, prefetch_factor=None)
    return type(loader)(loader, **{key: off[key] for key in off.keys() & loader.keys()})
