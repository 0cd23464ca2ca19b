"""Linear probe, k-NN and fine-tuning with a few labels: the second half of the protocol in docs/few-labels.md.

Shape legend: N samples, D width.
"""

import math
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from usp_mm.datasets.label_subset import label_subset
from usp_mm.engine.starting.build_runner import build_runner
from usp_mm.own_pictures.stages import scalars
from usp_mm.probing.data import extract, open_data, shuffled
from usp_mm.probing.features import load_frozen
from usp_mm.probing.knn_probe import knn_probe
from usp_mm.probing.layer_probe import HeadTrainer, ProbeSettings, make_heads, score_heads

from .arms import ARMS, ROOT, SIDE, Inputs, load

FINETUNE = str(ROOT / 'configs' / 'vit' / 'vit-tiny_usp-pre_1xb64-coslr-10e_digits.py')
BATCH, PROBE_STEPS, FINETUNE_STEPS = 64, 200, 100
MOST_NEIGHBOURS = 10

Split = tuple[Tensor, Tensor]


def features(inputs: Inputs, cfg: Config, arm: str, checkpoint: str) -> tuple[Split, Split, tuple[str, ...]]:
    """Features float32[N, D] and classes int64[N] of both splits, and the names of the classes."""
    model = load_frozen(cfg, checkpoint, device='cpu', load_vae=False)
    splits = [
        open_data(cfg, inputs.path(ARMS[arm][1], split), training=split == 'train', augment=False) for split in ('train', 'val')
    ]
    train, val = (extract(model, data, [model.depth], 256, data.path.name) for data in splits)
    return (train[0][0], train[1]), (val[0][0], val[1]), splits[0].classes


def epochs_for(steps: int, num: int) -> tuple[int, int]:
    """Batch size, and the smallest number of epochs that takes at least so many steps on `num` samples."""
    batch_size = min(BATCH, num)
    return batch_size, math.ceil(steps / (num // batch_size))


def linear_probe(train: Split, val: Split, num_classes: int, seed: int, steps: int = PROBE_STEPS) -> float:
    """Accuracy in per cent of a linear head on features, trained as `usp probe-layers` trains one."""
    x, labels = train
    batch_size, epochs = epochs_for(steps, len(labels))
    settings = ProbeSettings(epochs=epochs, batch_size=batch_size, optimizer='adamw', seed=seed)
    heads = make_heads([1], x.shape[1], num_classes, seed)
    trainer = HeadTrainer(heads, settings, steps=len(labels) // batch_size)
    for epoch in range(epochs):
        for batch in shuffled(len(labels), batch_size, seed, epoch):
            trainer.step([x[batch]], labels[batch])
    score: float = score_heads(heads, iter([([val[0]], val[1])]), num_classes)[0]['top1']
    return score


def nearest_neighbours(train: Split, val: Split, num_classes: int, per_class: int) -> float:
    """Accuracy in per cent of the k nearest labelled samples' vote, with k = `per_class`, at most 10."""
    score: float = knn_probe(train, val, num_classes, [min(per_class, MOST_NEIGHBOURS)])[0]['top1']
    return score


def frozen_scores(
    train: Split, val: Split, classes: tuple[str, ...], seed: int, numbers: list[int], draws: int
) -> list[dict[str, Any]]:
    """Probe and k-NN for each number of labels and each draw of them, as rows."""
    rows, labels = [], train[1].numpy()
    for per_class in numbers:
        for draw in range(10 * seed, 10 * seed + draws):
            chosen = torch.from_numpy(label_subset(labels, per_class, draw, classes, 'the training data'))
            few = train[0][chosen], train[1][chosen]
            facts = dict(labels_per_class=per_class, labels_seed=draw)
            rows.append(dict(facts, score='probe', accuracy=linear_probe(few, val, len(classes), seed)))
            rows.append(dict(facts, score='k-NN', accuracy=nearest_neighbours(few, val, len(classes), per_class)))
    return rows


def finetune(inputs: Inputs, arm: str, checkpoint: str, seed: int, per_class: int, steps: int, folder: Path) -> dict[str, Any]:
    """Fine-tune on a few labels, and return the row of the last accuracy."""
    pixels, draw, num_classes = ARMS[arm][1], 10 * seed, inputs.data.classes
    batch_size, epochs = epochs_for(steps, per_class * num_classes)
    warmup = max(1, epochs // 10)
    options: dict[str, Any] = {
        'randomness.seed': seed,
        'model.backbone.init_cfg.checkpoint': checkpoint,
        'model.head.num_classes': num_classes,
        'train_dataloader.batch_size': batch_size,
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': epochs,
        'param_scheduler.0.end': warmup,
        'param_scheduler.1.begin': warmup,
        'default_hooks.checkpoint.interval': -1,
        'default_hooks.checkpoint.save_last': False,
        'default_hooks.run_info': None,
        **inputs.model_options(pixels),
    }
    cfg = load(FINETUNE, options, folder)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset = _dataset(inputs, pixels, split)
        cfg[f'{split}_dataloader'].collate_fn = dict(type='default_collate' if pixels else 'collate_latents')
    cfg.train_dataloader.dataset.update(labels_per_class=per_class, labels_seed=draw)
    cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = None, None, None
    build_runner(cfg).train()
    accuracy = [record['accuracy/top1'] for record in scalars(folder) if 'accuracy/top1' in record][-1]
    return dict(labels_per_class=per_class, labels_seed=draw, score='fine-tuning', accuracy=accuracy)


def _dataset(inputs: Inputs, pixels: bool, split: str) -> dict[str, Any]:
    """What an arm trains on: pictures as they are, or their latents."""
    root = str(inputs.path(pixels, split))
    if not pixels:
        return dict(type='LatentCacheDataset', data_root=root, flip=False)
    pipeline = [dict(type='LoadImage'), dict(type='ADMCenterCrop', size=SIDE), dict(type='PackInputs')]
    return dict(type='ImageFolder', data_root=root, with_label=True, pipeline=pipeline)
