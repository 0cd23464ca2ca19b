"""Untrained models of the digit configs and latent caches of the small demo, for probes."""

from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS

from helpers.small_world import ROOT

CONFIGS = dict(
    usp='configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py',
    vit='configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py',
    dit='configs/dit/dit-tiny-p2_1xb64-2k_digits.py',
    sit='configs/sit/sit-tiny-p2_1xb64-2k_digits.py',
)


class ProbeWorld:
    """Attributes: images and caches, folders of 'train' (40) and 'val' (20); options, of every config."""

    def __init__(self, folder: Path, demo_data: Path, vae: Path) -> None:
        self.folder, self.images, self.vae = folder, demo_data / 'imagenet', vae
        self.caches = folder / 'latents'
        self.options = [f'model.data_preprocessor.vae.path={vae}']
        self._write_caches()

    def config(self, name: str) -> Config:
        """With the VAE in place."""
        cfg = Config.fromfile(ROOT / CONFIGS[name])
        cfg.model.data_preprocessor.vae.path = str(self.vae)
        return cfg

    def checkpoint(self, name: str) -> Path:
        """Of random weights; those of a generator differ from their average."""
        path = self.folder / f'{name}.pth'
        if not path.exists():
            torch.manual_seed(0)
            model = self.config(name).model
            if 'backbone' in model:
                model.backbone.init_cfg = None
            model = MODELS.build(model)
            for parameter in model.parameters():  # an untrained DiT's blocks would be the identity
                if parameter.ndim < 3:
                    torch.nn.init.normal_(parameter.data, std=0.05)
            torch.save(dict(state_dict=model.state_dict()), path)
        return path

    def _write_caches(self) -> None:
        from usp_mm.datasets.latent_cache.plan import CacheSpec
        from usp_mm.datasets.latent_cache.writer import write_cache
        from usp_mm.vaes import build_codec

        codec = build_codec('tiny', path=str(self.vae))
        for split in ('train', 'val'):
            write_cache(str(self.images / split), self.caches / split, codec, CacheSpec(64, flip=False), num_workers=0)
