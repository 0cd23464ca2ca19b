"""Linear probes of all layers of a frozen model, trained side by side (USP, arXiv 2503.06132, Figure 4 and Table 12).

Each head sees the same batches as if it were trained alone, and neither loss nor optimizer connects two heads. The score of a
layer therefore does not depend on which other layers are probed.

Shape legend: N samples, D width.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from usp_mm.datasets.seeding import derive_seed
from usp_mm.engine.optim.lars import MAELARS
from usp_mm.layers.probe_head import ProbeHead
from usp_mm.presets import lookup

from .data import ProbeData, check_same_classes, extract, in_order, shuffled, stream, with_epoch
from .features import FrozenModel, check_layers

#: name -> (class, learning rate of a batch size).
OPTIMIZERS = {'lars': (MAELARS, lambda batch_size: 0.1 * batch_size / 256), 'adamw': (torch.optim.AdamW, lambda _: 1e-2)}
#: Features up to so many bytes are kept in memory unless asked otherwise.
KEEP_BYTES = 8 * 2**30
#: Share of the epochs that warm up: 10 of 90.
_WARMUP = 1 / 9


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of the heads' training.

    Attributes:
        epochs: Number of training epochs.
        batch_size: Samples per step; an epoch's incomplete last batch is dropped.
        optimizer: 'lars' (Table 12) or 'adamw'.
        lr: Peak learning rate; None for 0.1 × batch / 256 with LARS and 0.01 with AdamW.
        warmup_epochs: Epochs with a linearly rising rate, before a cosine decay to 0; None for a ninth of the epochs.
        seed: Seed of heads, sample order and augmentation.
        keep_features: Whether the backbone runs only once, not once per epoch, which needs data without augmentation. None does
            so if the data are not augmented and the features take `KEEP_BYTES` or less.

    Raises:
        ValueError: A value is invalid.
    """

    epochs: int = 90
    batch_size: int = 1024
    optimizer: str = 'lars'
    lr: float | None = None
    warmup_epochs: float | None = None
    seed: int = 0
    keep_features: bool | None = None

    def __post_init__(self) -> None:
        lookup(OPTIMIZERS, self.optimizer, 'optimizer')
        if self.epochs < 1:
            raise ValueError(f'epochs={self.epochs} must be at least 1')
        if self.batch_size < 2:
            raise ValueError(f'batch_size={self.batch_size} must be at least 2: BatchNorm needs a variance')
        if self.lr is not None and self.lr <= 0:
            raise ValueError(f'lr={self.lr} must be positive')
        if not 0 <= self.warmup < self.epochs:
            raise ValueError(f'warmup_epochs={self.warmup} must be from 0 to less than epochs={self.epochs}')
        if not 0 <= self.seed < 2**56:
            raise ValueError(f'seed={self.seed} must be from 0 to 2^56 - 1')

    @property
    def peak_lr(self) -> float:
        """Learning rate after the warm-up."""
        return self.lr if self.lr is not None else OPTIMIZERS[self.optimizer][1](self.batch_size)

    @property
    def warmup(self) -> float:
        """Length of the warm-up in epochs."""
        return self.warmup_epochs if self.warmup_epochs is not None else self.epochs * _WARMUP

    def describe(self) -> dict[str, Any]:
        """The settings as plain values, with defaults resolved."""
        return dict(asdict(self), lr=self.peak_lr, warmup_epochs=self.warmup)


def make_heads(layers: Sequence[int], dims: int, num_classes: int, seed: int) -> nn.ModuleDict:
    """Make a linear head for each layer, with weights that depend on (seed, layer)."""
    return nn.ModuleDict({str(k): ProbeHead(dims, num_classes, derive_seed(seed, k)) for k in layers})


def lr_factor(step: int, total: int, warmup: int) -> float:
    """Fraction of the peak rate at a step, 0 … total: a linear rise, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


class HeadTrainer:
    """Trains all heads on the same batches.

    Args:
        heads: Heads from `make_heads`, on their device.
        settings: Optimizer and schedule.
        steps: Number of steps per epoch.
    """

    def __init__(self, heads: nn.ModuleDict, settings: ProbeSettings, steps: int) -> None:
        self.heads, self.total = heads.train(), steps * settings.epochs
        warmup = round(steps * settings.warmup)
        optimizer = OPTIMIZERS[settings.optimizer][0]
        self.optimizer = optimizer(heads.parameters(), lr=settings.peak_lr, weight_decay=0.0)
        self.schedule = LambdaLR(self.optimizer, lambda step: lr_factor(step, self.total, warmup))

    def step(self, features: Sequence[Tensor], labels: Tensor) -> Tensor:
        """Train on features [N, D] of each head, in order, and classes int64[N]; return the losses [heads] before the step."""
        losses = [cross_entropy(head(x), labels) for head, x in zip(self.heads.values(), features, strict=True)]
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        self.optimizer.step()
        self.schedule.step()
        return torch.stack(losses).detach()


@torch.no_grad()
def score_heads(heads: nn.ModuleDict, batches: Iterator[tuple[list[Tensor], Tensor]], num_classes: int) -> list[dict[str, Any]]:
    """Accuracy of each head in per cent, as dicts of layer, top1 and top5 (None with five classes or fewer)."""
    heads.eval()
    top = [1, 5] if num_classes > 5 else [1]
    hits, num = torch.zeros(len(heads), len(top), dtype=torch.float64), 0
    for features, labels in batches:
        for row, (head, x) in enumerate(zip(heads.values(), features, strict=True)):
            hit = head(x).topk(top[-1], dim=1).indices == labels[:, None]
            hits[row] += torch.stack([hit[:, :n].any(1).sum() for n in top]).double().cpu()
        num += len(labels)
    rows = (100 * hits / num).tolist()
    return [dict(layer=int(k), top1=row[0], top5=row[1] if len(row) > 1 else None) for k, row in zip(heads, rows, strict=True)]


def best_layer(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row with the highest top-1 accuracy; the first one if several are equal."""
    return max(rows, key=lambda row: row['top1'])


def check_probe(model: FrozenModel, train: ProbeData, val: ProbeData, layers: Sequence[int], settings: ProbeSettings) -> None:
    """Raise ValueError if the probe cannot be trained, before any long work."""
    check_layers(layers, model.depth)
    check_same_classes(train, val)
    if settings.batch_size > len(train):
        raise ValueError(f"batch_size={settings.batch_size} is more than the {len(train)} samples of '{train.path}'")
    if train.augmented and settings.keep_features:
        raise ValueError('features of augmented data differ in every epoch: keep them, or augment, not both')


def probe_layers(
    model: FrozenModel, train: ProbeData, val: ProbeData, layers: Sequence[int], settings: ProbeSettings
) -> tuple[nn.ModuleDict, list[dict[str, Any]]]:
    """Train and score a linear head on each layer.

    Args:
        model: Frozen model; it is not changed.
        train, val: Labelled data with the same classes.
        layers: Distinct blocks from 1 to the depth.
        settings: Settings of the training.

    Returns:
        The heads by layer, and the result of `score_heads` on `val`.

    Raises:
        ValueError: As in `check_probe`, or the training diverged.
    """
    check_probe(model, train, val, layers, settings)
    num_classes, width = len(train.classes), model.network.embed_dims
    heads = make_heads(layers, width, num_classes, settings.seed).to(model.device)
    trainer = HeadTrainer(heads, settings, steps=len(train) // settings.batch_size)
    keep = settings.keep_features
    if keep is None:
        keep = not train.augmented and 4 * width * len(train) * len(layers) <= KEEP_BYTES
    logger = MMLogger.get_current_instance()
    logger.info(f'{len(layers)} layers; the backbone runs once {"in all" if keep else "an epoch"}')
    kept = extract(model, train, layers, settings.batch_size, 'features') if keep else None
    for epoch in range(settings.epochs):
        batches = shuffled(len(train), settings.batch_size, settings.seed, epoch)
        loaded = _training_batches(model, train, layers, batches, kept, settings.seed, epoch)
        mean = torch.stack([trainer.step(features, labels) for features, labels in loaded]).mean(0)
        if not mean.isfinite().all():
            first = layers[int((~mean.isfinite()).nonzero()[0])]
            raise ValueError(f'the probe of layer {first} diverged in epoch {epoch + 1}: lower lr={settings.peak_lr}')
        logger.info(f'epoch {epoch + 1}/{settings.epochs}: mean loss of the layers {mean.min():.4f} to {mean.max():.4f}')
    scored = stream(model, val, layers, in_order(len(val), settings.batch_size), 'validation')
    return heads, score_heads(heads, scored, num_classes)


def _training_batches(
    model: FrozenModel,
    data: ProbeData,
    layers: Sequence[int],
    batches: Sequence[Sequence[int]],
    kept: tuple[list[Tensor], Tensor] | None,
    seed: int,
    epoch: int,
) -> Iterator[tuple[list[Tensor], Tensor]]:
    """Yield features and classes of these batches, from `kept` or from the backbone."""
    if kept is None:
        if data.augmented:
            batches = with_epoch(batches, seed, epoch)
        yield from stream(model, data, layers, batches, f'epoch {epoch + 1}')
        return
    features, labels = kept
    for batch in map(torch.tensor, batches):
        yield [x[batch].to(model.device) for x in features], labels[batch].to(model.device)
