"""Optimizers, hooks and file backends that MMEngine and mmpretrain lack: importing this module registers them."""

from .accumulation import AccumulationHook
from .checkpoint_data import CheckpointDataHook
from .checkpoint_hook import AtomicCheckpointHook
from .checks.cache import LatentCacheCheckHook
from .checks.checkpoint import CheckpointMatchHook
from .checks.classes import ClassCheckHook
from .checks.generator import GeneratorCheckHook
from .checks.save_best import SaveBestCheckHook
from .ema_hook import GeneratorEMAHook
from .file_backend import AtomicLocalBackend
from .finite import FiniteHook
from .hooks import (
    BatchNormMeanHook,
    RestorationHook,
    StatelessSeedHook,
)
from .lars import MAELARS
from .late_validation import LateValidationHook
from .loops import PositionedIterTrainLoop
from .optim_wrapper import AutocastOptimWrapper
from .param_groups import MergeParamGroupsHook
from .preemption import PreemptionHook
from .resume import ResumeHook
from .run_info import RunInfoHook
from .runtime_info import DeferredRuntimeInfoHook, ReduceLossHook
from .sight_hook import ShowHook
from .tf32_hook import TF32Hook
from .trackers import MLflowPictureVisBackend
from .vae_record import VAERecordHook

__all__ = [
    'MAELARS',
    'AccumulationHook',
    'AtomicCheckpointHook',
    'AtomicLocalBackend',
    'AutocastOptimWrapper',
    'BatchNormMeanHook',
    'CheckpointDataHook',
    'CheckpointMatchHook',
    'ClassCheckHook',
    'DeferredRuntimeInfoHook',
    'FiniteHook',
    'GeneratorCheckHook',
    'GeneratorEMAHook',
    'LateValidationHook',
    'LatentCacheCheckHook',
    'MLflowPictureVisBackend',
    'MergeParamGroupsHook',
    'PositionedIterTrainLoop',
    'PreemptionHook',
    'ReduceLossHook',
    'RestorationHook',
    'ResumeHook',
    'RunInfoHook',
    'SaveBestCheckHook',
    'ShowHook',
    'StatelessSeedHook',
    'TF32Hook',
    'VAERecordHook',
]
