"""The data sets, the arms, and their pretraining: the first half of the protocol in docs/few-labels.md."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

import usp_mm
from usp_mm.config.options import DemoData, LaptopVAETraining, TinyVAETraining
from usp_mm.datasets.demo import make_demo_data
from usp_mm.datasets.demo_emoji import make_demo_emoji
from usp_mm.datasets.latent_cache.plan import CacheSpec
from usp_mm.datasets.latent_cache.writer import write_cache
from usp_mm.engine.starting.build_runner import build_runner, load_run_config
from usp_mm.fileio.atomic import write_json, write_whole
from usp_mm.own_pictures.stages import last_checkpoint
from usp_mm.vaes import build_codec
from usp_mm.vaes.laptop import train_laptop_vae
from usp_mm.vaes.tiny import train_tiny_vae

ROOT = Path(__file__).resolve().parents[2]
SIDE = 64


@dataclass(frozen=True)
class DataSet:
    """What is fixed of a data set.

    Attributes:
        vae: Preset of the VAE.
        vae_steps: Its training steps.
        suffix: End of the names of the pretraining configs, after `usp_` and `mae_`.
        batch_size, epochs, warmup: Of pretraining.
        flip: Whether pretraining mirrors pictures.
        classes: Number of classes.
        pixel_patch: Pixels per token side of the pixel MAE, for as many tokens as the latents have.
    """

    vae: str
    vae_steps: int
    suffix: str
    batch_size: int
    epochs: int
    warmup: int
    flip: bool
    classes: int
    pixel_patch: int


DATA = {
    'digits': DataSet('tiny', 400, 'vit-tiny_1xb64-coslr-120e_digits', 64, 24, 3, False, 10, 16),
    'emoji': DataSet('laptop', 500, 'vit-tiny_1xb32-coslr-200e_own', 32, 6, 1, True, 8, 8),
}
#: Arm -> whether it is pretrained, and whether it sees pixels in place of latents.
ARMS = {
    'USP': (True, False),
    'pixel MAE': (True, True),
    'random, latents': (False, False),
    'random, pixels': (False, True),
}


def shortened(data: DataSet) -> DataSet:
    """The same in seconds, to try the script: the numbers mean nothing."""
    return replace(data, vae_steps=2, epochs=2, warmup=1)


def code_version() -> str:
    """Commit of this checkout, whose usp_mm has to be the one that runs; 'unknown' without git.

    Raises:
        ValueError: usp_mm is imported from elsewhere, such as from an installed copy.
    """
    found = Path(usp_mm.__file__).resolve().parents[1]
    if found != ROOT:
        raise ValueError(f"usp_mm is that of '{found}', and the records would name the commit of '{ROOT}': pip install -e '.'")
    if not shutil.which('git'):
        return 'unknown'
    words = ['git', '-C', str(ROOT), 'rev-parse', '--short=10', 'HEAD']
    return subprocess.run(words, capture_output=True, text=True).stdout.strip() or 'unknown'


@contextmanager
def cpu_time(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Note the CPU seconds that this process spends within the context."""
    start = time.process_time()
    yield
    seconds[name] = round(time.process_time() - start, 1)


class Inputs:
    """One data set on the disk: pictures, VAE and latents; what is there already is kept.

    Attributes:
        folder: Where everything of this data set is.
        seconds: CPU seconds of what was made now.
    """

    def __init__(self, name: str, data: DataSet, folder: Path) -> None:
        self.name, self.data, self.folder = name, data, folder
        self.seconds: dict[str, float] = {}

    @property
    def images(self) -> Path:
        """Pictures in 'train' and 'val'."""
        return self.folder / 'data' / 'imagenet'

    def path(self, pixels: bool, split: str) -> Path:
        """What an arm reads of a split."""
        return self.images / split if pixels else self.folder / 'latents' / split

    def spent(self) -> dict[str, float]:
        """CPU seconds of the VAE and the caches, of this call or of earlier ones."""
        path = self.folder / 'seconds.json'
        found: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        found |= {name: value for name, value in self.seconds.items() if name not in found}
        write_json(path, found)
        return found

    def make(self) -> None:
        """Draw the pictures, train the VAE and write the caches."""
        if self.name == 'emoji':
            make_demo_emoji(self.folder / 'data')
        else:
            make_demo_data(self.folder / 'data', DemoData(train_scenes=1, val_scenes=1))
        vae, steps = self.folder / 'vae', self.data.vae_steps
        if not vae.exists():
            with cpu_time(self.seconds, 'vae'):
                if self.data.vae == 'laptop':
                    train_laptop_vae(self.images / 'train', vae, LaptopVAETraining(steps=steps))
                else:
                    train_tiny_vae(self.images / 'train', vae, TinyVAETraining(steps=steps))
        codec = build_codec(self.data.vae, path=vae)
        for split in ('train', 'val'):
            spec = CacheSpec(SIDE, flip=self.data.flip and split == 'train')
            with cpu_time(self.seconds, f'cache {split}'):
                write_cache(str(self.images / split), self.folder / 'latents' / split, codec, spec, 64, 0)

    def model_options(self, pixels: bool) -> dict[str, Any]:
        """Config options that set what an arm's model sees."""
        if pixels:
            vae = dict(name='pixel', path=None)
            return {'model.data_preprocessor.vae': vae, 'model.backbone.patch_size': self.data.pixel_patch}
        return {'model.data_preprocessor.vae': dict(name=self.data.vae, path=str(self.folder / 'vae'))}

    def config_name(self, pixels: bool) -> str:
        """Config of an arm's pretraining."""
        return str(ROOT / 'configs' / 'usp' / f'{"mae" if pixels else "usp"}_{self.data.suffix}.py')


def load(config: str, options: dict[str, Any], work_dir: Path) -> Config:
    """A config for a run in this process, which writes its log and its last checkpoint only."""
    quiet = {'visualizer.vis_backends': [dict(type='LocalVisBackend')], 'default_hooks.checkpoint.max_keep_ckpts': 1}
    cfg = load_run_config(config, {**options, **quiet}, work_dir=str(work_dir))
    cfg.experiment_name = '-'.join(work_dir.parts[-3:])
    return cfg


def arm_folder(inputs: Inputs, arm: str, seed: int) -> Path:
    """Where an arm of a seed is."""
    return inputs.folder / f'{arm.replace(", ", "-").replace(" ", "-")}-seed{seed}'


def pretrained(inputs: Inputs, arm: str, seed: int) -> tuple[Config, str, float]:
    """The pretraining config of an arm, its checkpoint, and the CPU seconds of its training, if it was trained now."""
    trains, pixels = ARMS[arm]
    data, folder = inputs.data, arm_folder(inputs, arm, seed) / 'pretrain'
    options: dict[str, Any] = {'randomness.seed': seed, 'train_cfg.max_epochs': data.epochs}
    options |= {'param_scheduler.0.end': data.warmup, 'param_scheduler.1.begin': data.warmup}
    options |= {'default_hooks.checkpoint.interval': data.epochs, 'default_hooks.restoration.interval': 10 * data.epochs}
    options |= {'train_dataloader.dataset.data_root': str(inputs.images if pixels else inputs.path(pixels, 'train'))}
    options |= inputs.model_options(pixels)
    cfg = load(inputs.config_name(pixels), options, folder)
    if not trains:
        return cfg, _untrained(cfg, folder, seed), 0.0
    seconds: dict[str, float] = {}
    if not (folder / 'last_checkpoint').is_file():
        with cpu_time(seconds, 'pretrain'):
            build_runner(cfg).train()
    return cfg, last_checkpoint(folder), seconds.get('pretrain', 0.0)


def _untrained(cfg: Config, folder: Path, seed: int) -> str:
    """A checkpoint of weights as a training with this seed would begin with."""
    path = folder / 'untrained.pth'
    if not path.is_file():
        torch.manual_seed(seed)
        model = MODELS.build(cfg.model)
        model.init_weights()
        folder.mkdir(parents=True, exist_ok=True)
        with write_whole(path) as file:
            torch.save(dict(state_dict=model.state_dict()), file)
    return str(path)
