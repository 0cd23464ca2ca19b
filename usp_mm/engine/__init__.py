"""Optimizers, hooks and file backends that MMEngine and mmpretrain lack: importing this module registers them.

`checkpointing` writes and finds checkpoints, `resuming` goes on from one, `optim` has optimizers and what surrounds them,
`hooks` the other hooks, `records` what a run writes down, `starting` turns configs into Runners, `checks` refuses early.
"""

from .checkpointing.atomic_backend import AtomicLocalBackend
from .checkpointing.checkpoint_data import CheckpointDataHook
from .checkpointing.checkpoint_hook import AtomicCheckpointHook
from .checkpointing.preemption import PreemptionHook
from .checks.cache import LatentCacheCheckHook
from .checks.checkpoint import CheckpointMatchHook
from .checks.classes import ClassCheckHook
from .checks.generator import GeneratorCheckHook
from .checks.save_best import SaveBestCheckHook
from .hooks.batch_norm_mean_hook import BatchNormMeanHook
from .hooks.ema_hook import GeneratorEMAHook
from .hooks.finite_hook import FiniteHook
from .hooks.restoration_hook import RestorationHook
from .hooks.seed_hook import StatelessSeedHook
from .hooks.show_hook import ShowHook
from .hooks.tf32_hook import TF32Hook
from .loops import PositionedIterTrainLoop
from .optim.accumulation import AccumulationHook
from .optim.lars import MAELARS
from .optim.optim_wrapper import AutocastOptimWrapper
from .optim.param_groups import MergeParamGroupsHook
from .records.run_info import RunInfoHook
from .records.runtime_info import DeferredRuntimeInfoHook, ReduceLossHook
from .records.trackers import MLflowPictureVisBackend
from .records.vae_record import VAERecordHook
from .resuming.late_validation import LateValidationHook
from .resuming.resume_hook import ResumeHook

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
