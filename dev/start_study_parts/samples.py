"""FD of the samples that a run makes after its end, by the features of a small classifier of the training pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from few_labels_parts.arms import ROOT, load
from mmengine.runner import Runner

from usp_mm.engine.starting.build_runner import build_runner
from usp_mm.own_pictures.stages import last_checkpoint

from .arms import NUM_CLASSES

METRIC = 'Feature/FD'
_CONFIG = 'resnet18-w16_1xb64-coslr-8e_digits'


@dataclass(frozen=True)
class Judge:
    """The classifier and its pictures.

    Attributes:
        folder: Of the classifier, which is trained if it is not there.
        images: Pictures in 'train' and 'val'; those of 'train' are what samples are compared with.
        img_size: Their side in pixels.
        num_samples: Number of samples, as many of each class; the seeds of the samples are the same for every run.
        epochs: Of the classifier's training.
    """

    folder: Path
    images: Path
    img_size: int
    num_samples: int = 1000
    epochs: int = 30

    def _train(self) -> None:
        options: dict[str, Any] = {
            'randomness.seed': 0,
            'model.head.num_classes': NUM_CLASSES,
            'train_cfg.max_epochs': self.epochs,
            'train_cfg.val_interval': self.epochs,
            'train_dataloader.dataset.pipeline.2.crop_size': self.img_size,
            'default_hooks.checkpoint.interval': self.epochs,
        }
        for split in ('train', 'val', 'test'):
            options[f'{split}_dataloader.dataset.data_root'] = str(self.images)
        build_runner(load(str(ROOT / 'configs' / 'features' / f'{_CONFIG}.py'), options, self.folder)).train()

    def test_parts(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """`test_dataloader` and `test_evaluator` of a generator's config, in place of whatever it has."""
        if not (self.folder / 'last_checkpoint').is_file():
            self._train()
        extractor = dict(
            type='ClassifierFeatures', config=str(self.folder / f'{_CONFIG}.py'), checkpoint=last_checkpoint(self.folder)
        )
        metric = dict(type='FeatureMetrics', extractor=extractor, reference=str(self.images / 'train'))
        dataset = dict(type='SampleRequests', num_samples=self.num_samples, num_classes=NUM_CLASSES, label_mode='balanced')
        loader = dict(
            batch_size=100,
            num_workers=0,
            persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
            collate_fn=dict(type='default_collate'),
            dataset=dataset,
        )
        return loader, dict(type='Evaluator', metrics=[metric])


def fd_of(runner: Runner) -> float:
    """Sample from the averaged weights of a runner whose training has ended, and return FD."""
    runner.test()  # of mmagic's loop, which returns nothing
    return float(runner.message_hub.get_scalar(f'test/{METRIC}').current())
