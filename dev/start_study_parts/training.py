"""Pretraining and generator trainings of the study, each an ordinary Runner of a config with options."""

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from few_labels_parts.arms import DATA, ROOT, Inputs, code_version, cpu_time, load
from mmengine.hooks import Hook
from mmengine.runner import Runner

from usp_mm.config.options import DemoEmoji, LaptopVAETraining
from usp_mm.datasets.demo_emoji import make_demo_emoji
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.engine.starting.build_runner import build_runner
from usp_mm.fileio.atomic import write_json
from usp_mm.own_pictures.stages import last_checkpoint, scalars
from usp_mm.runtime.processor import processor_name
from usp_mm.vaes import build_codec
from usp_mm.vaes.laptop import train_laptop_vae

from .arms import ARMS, SIZES, Size, generator_options, start_options, teacher_options, teacher_seed
from .samples import Judge, fd_of


class StepClock(Hook):
    """Measures seconds per training step between evaluations, data included: CPU seconds, or on a GPU wall time.

    Args:
        interval: Steps from one evaluation to the next, 2 or more. The first step after an evaluation is left out.

    Attributes:
        seconds: Seconds per step of each stretch between evaluations.
    """

    priority = 'VERY_LOW'

    def __init__(self, interval: int) -> None:
        self.interval, self.seconds, self._start = interval, list[float](), 0.0

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Begin a stretch after its first step, and end it after its last."""
        step = (runner.iter + 1) % self.interval
        if step == 1:
            self._start = _now()
        elif step == 0:
            self.seconds.append((_now() - self._start) / (self.interval - 1))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


class Study:
    """The trainings of one size; pictures, VAE, caches and encoders that are there already are kept.

    Args:
        name: Name of the size.
        work_dir: Folder of everything; sizes of the same pictures share them.
    """

    def __init__(self, name: str, work_dir: Path) -> None:
        self.name, self.size = name, SIZES[name]
        self.facts = facts(self.size)  # before the first run, as a commit meanwhile changes no code that runs
        data = replace(DATA['emoji'], vae_steps=2) if name == 'toy' else DATA['emoji']
        self.inputs = Inputs('emoji', data, work_dir / (name if name == 'toy' else f'emoji-{self.size.img_size}px'))
        self.folder = self.inputs.folder
        toy = dict(num_samples=16, epochs=3) if name == 'toy' else {}
        self.judge = Judge(self.folder / 'features', self.inputs.images, self.size.img_size, **toy)

    def make_inputs(self) -> None:
        """Draw the pictures, train the VAE and write the caches."""
        if self.size.img_size == 64:
            self.inputs.make()
            return
        make_demo_emoji(self.folder / 'data', DemoEmoji(emoji_size=self.size.img_size))
        vae = self.folder / 'vae'
        if not vae.exists():
            train_laptop_vae(self.inputs.images / 'train', vae, LaptopVAETraining(steps=self.inputs.data.vae_steps))
        codec = build_codec('laptop', path=vae)
        for split in ('train', 'val'):
            spec = CacheSpec(self.size.img_size, flip=split == 'train')
            write_cache(str(self.inputs.images / split), self.folder / 'latents' / split, codec, spec, 64, 0)

    def pretrained(self, seed: int, length: int) -> str:
        """Checkpoint of the encoder of a seed, trained now if it is not there."""
        size, folder = self.size, self.folder / f'pretrain-{self.name}-x{length}-seed{seed}'
        if not (folder / 'last_checkpoint').is_file():
            seconds: dict[str, float] = {}
            with cpu_time(seconds, 'cpu_seconds'):
                build_runner(load(_config('usp', size.pretrain_config), self._pretrain_options(seed, length), folder)).train()
            write_json(folder / 'seconds.json', seconds)
        return last_checkpoint(folder)

    def _pretrain_options(self, seed: int, length: int) -> dict[str, Any]:
        size, epochs = self.size, self.size.epochs * length
        return {
            'randomness.seed': seed,
            'model.data_preprocessor.vae': dict(name='laptop', path=str(self.folder / 'vae')),
            'model.backbone.arch': size.arch,
            'train_cfg.max_epochs': epochs,
            'param_scheduler.0.end': size.warmup,
            'param_scheduler.1.begin': size.warmup,
            'optim_wrapper.optimizer.lr': size.pretrain_lr,
            'default_hooks.checkpoint.interval': epochs,
            'default_hooks.restoration.interval': 10 * epochs,
            'train_dataloader.dataset.data_root': str(self.folder / 'latents' / 'train'),
        }

    def train(self, family: str, name: str, seed: int, judged: bool = False) -> dict[str, Any]:
        """Train an arm and return its record, with FD of its samples if they are `judged`."""
        size, arm = self.size, ARMS[name]
        options = generator_options(size, arm, seed, self.folder)
        if arm.pretraining:
            options |= start_options(self.pretrained(seed, arm.pretraining))
        if arm.aligned:
            teacher = self.pretrained(teacher_seed(seed), arm.pretraining)
            options |= teacher_options(size, teacher, self.folder, self.inputs.images)
        folder = self.folder / 'runs' / f'{family}-{self.name}-{name}-seed{seed}'
        cfg = load(_config(family, size.config.format(family)), options, folder)
        if judged:
            cfg.test_dataloader, cfg.test_evaluator = self.judge.test_parts()
        else:
            cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = None, None, None
        runner, clock, spent = build_runner(cfg), StepClock(size.interval), dict[str, float]()
        runner.register_hook(clock)
        with cpu_time(spent, 'run'):
            runner.train()
        found = [(row['step'], row['denoising_loss']) for row in scalars(folder) if 'denoising_loss' in row]
        record = dict(
            self.facts,
            family=family,
            size=self.name,
            arm=name,
            seed=seed,
            teacher_seed=teacher_seed(seed) if arm.aligned else None,
            at=[step for step, _ in found],
            losses=[loss for _, loss in found],
            seconds_per_step=round(statistics.median(clock.seconds), 5),
            cpu_seconds=spent['run'],
        )
        return record | (dict(fd=fd_of(runner), fd_commit=record['commit']) if judged else {})


def facts(size: Size) -> dict[str, Any]:
    """What a record says of the settings and of the machine."""
    gpu = torch.cuda.is_available()
    return dict(
        steps=size.steps,
        batch_size=size.batch_size,
        processor=torch.cuda.get_device_name() if gpu else processor_name(),
        clock='wall' if gpu else 'CPU',
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        commit=code_version(),
    )


def _config(folder: str, name: str) -> str:
    return str(ROOT / 'configs' / folder / f'{name}.py')
