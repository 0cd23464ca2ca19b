"""Optimizers, hooks and file backends that MMEngine and mmpretrain lack: importing this module registers them."""

from .class_check import ClassCheckHook
from .ema_hook import GeneratorEMAHook
from .file_backend import AtomicLocalBackend
from .generator_check import GeneratorCheckHook
from .hooks import (
    BatchNormMeanHook,
    CheckpointMatchHook,
    LatentCacheCheckHook,
    ReduceLossHook,
    RestorationHook,
    StatelessSeedHook,
)
from .lars import MAELARS
from .loops import PositionedIterTrainLoop
from .optim_wrapper import AutocastOptimWrapper
from .run_info import RunInfoHook

__all__ = [
    'MAELARS',
    'AtomicLocalBackend',
    'AutocastOptimWrapper',
    'BatchNormMeanHook',
    'CheckpointMatchHook',
    'ClassCheckHook',
    'GeneratorCheckHook',
    'GeneratorEMAHook',
    'LatentCacheCheckHook',
    'PositionedIterTrainLoop',
    'ReduceLossHook',
    'RestorationHook',
    'RunInfoHook',
    'StatelessSeedHook',
]
