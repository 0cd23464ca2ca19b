"""Data, caches, VAE weights and shrunk configs, so that any config can take a step in a second."""

import copy
import itertools
import os
import shutil
import subprocess
import sys
import zlib
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmpretrain.registry import MODELS
from torch.distributed.elastic.utils.distributed import get_free_port

from helpers.teacher_files import MODEL, teacher_folder

ROOT = Path(__file__).parents[2]
_RUNS = itertools.count()
ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=1, decoder_heads=2)


@cache
def _loaded(path: Path) -> Config:
    return Config.fromfile(path)


def load_leaf(path: Path | str) -> Config:
    """A copy of the config at `path` in the project, which is read once in a process: reading costs 40 times the copy."""
    return copy.deepcopy(_loaded(ROOT / path))


def run_tool(*command, cwd=ROOT, **kwargs):
    """Run `python COMMAND` as a user does; returns the finished process with its output as text."""
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=600, **kwargs)


def run_launcher(*command):
    """Run `bash COMMAND`, a launcher of several processes, on a free port; returns what `run_tool` does."""
    env = {**os.environ, 'PORT': str(get_free_port()), 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}'}
    return subprocess.run(['bash', *map(str, command)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)


def train_quickly(cfg: Config, work_dir: Path) -> Runner:
    """Train a shrunk config; without MMEngine's formatting of the configs it logs, which takes longer than the training.

    Each run has a name of its own: MMEngine names runs by the second, and gives those of one name one logger and visualizer.
    """
    cfg.work_dir, cfg.experiment_name = str(work_dir), f'run{next(_RUNS)}'
    with (
        patch('mmengine.config.config.FormatCode', lambda text, **_: (text, True)),
        patch('mmengine.runner.runner.collect_env', dict),
    ):
        runner = Runner.from_cfg(cfg)
        runner.train()
    return runner


def _resize(cfg: Config, img_size: int) -> None:
    cfg.model.backbone.img_size = img_size
    for name in ('train', 'val', 'test'):
        for step in (cfg.get(f'{name}_dataloader') or {}).get('dataset', {}).get('pipeline', []):
            for key in {
                'RandomResizedCrop': ['scale'], 'MAERandomResizedCrop': ['size'], 'ResizeEdge': ['scale'],
                'CenterCrop': ['crop_size'],
            }.get(step.type, []):  # fmt: skip
                step[key] = img_size


class SmallWorld:
    """Two classes of two images, a tiny VAE, a KL-16 of width 32, caches of both, and a pretrained encoder each.

    Attributes:
        images: folder of 'train' and 'val'.
        digits: folder of the 40 images that these are some of.
    """

    def __init__(self, folder: Path, demo_data: Path, tiny_vae_folder: Path, kl16_file: Path) -> None:
        self.folder, self.tiny_vae_folder, self.kl16_file = folder, tiny_vae_folder, kl16_file
        self.images, self.digits = folder / 'images', demo_data / 'imagenet' / 'train'
        for split in ('train', 'val'):
            for name in ('0', '1'):
                target = self.images / split / name
                target.mkdir(parents=True)
                for image in sorted((demo_data / 'imagenet' / split / name).iterdir())[:2]:
                    shutil.copy(image, target)

    def vae_of(self, name: str) -> dict:
        """Preset and weights that stand in for a config's VAE: the same channels, stride and patch."""
        if name == 'pixel':
            return dict(name='pixel', path=None)
        if name == 'kl-f16d16':
            return dict(name=name, path=str(self.kl16_file))
        return dict(name='tiny', path=str(self.tiny_vae_folder))

    def teacher(self) -> str:
        """A folder of a small teacher's weights (REPA)."""
        folder = self.folder / 'teacher'
        return str(folder if folder.exists() else teacher_folder(folder))

    def cache(self, vae: str, img_size: int, flip: bool = True, with_teacher: bool = False, split: str = 'train') -> str:
        """A latent cache of the training or validation images, with the tokens of `teacher()` if asked for."""
        from usp_mm.datasets.latent_cache.plan import CacheSpec
        from usp_mm.datasets.latent_cache.writer import write_cache
        from usp_mm.models.repa import build_teacher
        from usp_mm.vaes import build_codec

        preset = self.vae_of(vae)
        out = self.folder / f'latents-{split}-{preset["name"]}-{img_size}-{flip}{"-teacher" * with_teacher}'
        if not out.exists():
            codec = build_codec(preset)
            teacher = build_teacher(dict(name=MODEL, path=self.teacher()), img_size) if with_teacher else None
            spec = CacheSpec(img_size, flip=flip)
            write_cache(str(self.images / split), out, codec, spec, num_workers=0, teacher=teacher)
        return str(out)

    def encoder(self, backbone: dict, vae: str) -> str:
        """A checkpoint of a random encoder of this shape."""
        shape = {key: backbone[key] for key in ('arch', 'img_size', 'patch_size', 'block') if key in backbone}
        path = self.folder / f'encoder-{vae}-{zlib.crc32(repr(shape).encode()):08x}.pth'
        if not path.exists():
            encoder = MODELS.build(dict(type='USPViT', vae=vae, **shape))
            torch.save(dict(state_dict={f'backbone.{k}': v for k, v in encoder.state_dict().items()}), path)
        return str(path)

    def shrink(self, cfg: Config, img_size: int | None = None) -> Config:
        """The config at a size that steps in a second: one epoch of one iteration of four images, of another side if given."""
        if img_size is not None:
            _resize(cfg, img_size)
        model, preset = cfg.model, self.vae_of(cfg.model.data_preprocessor.vae.name)
        model.data_preprocessor.vae = preset
        model.backbone.arch = dict(ARCH)
        if 'frozen_stages' in model.backbone:
            model.backbone.frozen_stages = ARCH['depth']
        if model.backbone.get('init_cfg'):
            model.backbone.init_cfg.checkpoint = self.encoder(model.backbone, preset['name'])
        if 'num_classes' in model.get('head', {}):
            model.head.num_classes = 2
        for name in ('train', 'val', 'test'):
            loader = cfg.get(f'{name}_dataloader')
            if loader is None:
                continue
            loader.update(batch_size=4, num_workers=0, persistent_workers=False)
            if loader.dataset.type == 'LatentCacheDataset':
                loader.dataset.data_root = self.cache(preset['name'], model.backbone.img_size, loader.dataset.flip)
            else:
                loader.dataset.update(data_root=str(self.images), serialize_data=False)
        if cfg.get('val_evaluator'):
            cfg.val_evaluator.topk = cfg.test_evaluator.topk = (1,)
        cfg.train_cfg.max_epochs = 1
        cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
        cfg.default_hooks.logger.interval = 1
        return cfg
