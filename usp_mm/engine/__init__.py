"""Optimizers, hooks and file backends that MMEngine and mmpretrain lack: importing this module registers them."""

from .file_backend import AtomicLocalBackend
from .hooks import CheckpointMatchHook, LatentCacheCheckHook, ReduceLossHook, RestorationHook, StatelessSeedHook
from .lars import MAELARS
from .optim_wrapper import AutocastOptimWrapper

__all__ = [
    'MAELARS',
    'AtomicLocalBackend',
    'AutocastOptimWrapper',
    'CheckpointMatchHook',
    'LatentCacheCheckHook',
    'ReduceLossHook',
    'RestorationHook',
    'StatelessSeedHook',
]
