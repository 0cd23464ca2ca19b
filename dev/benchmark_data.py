"""Images, label maps and untrained VAEs for `benchmark.py understand`, and what caching their latents takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmark_lib import now, write_random_cache


def write_photos(folder: Path, num: int, width: int, height: int, labels: Path | None = None) -> None:
    """JPEG images of smooth noise, and label maps of 0 to 150 in the folder `labels`; 16 of each are different."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0)
    for parent in filter(None, (folder, labels)):
        parent.mkdir(parents=True)
    for i in range(min(num, 16)):
        colours = Image.fromarray(noise.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8))
        colours.resize((width, height), Image.Resampling.BICUBIC).save(folder / f'{i:06d}.jpg', quality=90)
        if labels is not None:
            areas = Image.fromarray(noise.integers(0, 151, (8, 8), dtype=np.uint8))
            areas.resize((width, height), Image.Resampling.NEAREST).save(labels / f'{i:06d}.png')
    for i in range(16, num):
        for path in filter(None, (folder / f'{i:06d}.jpg', labels and labels / f'{i:06d}.png')):
            path.hardlink_to(path.with_stem(f'{i % 16:06d}'))


def write_random_vae(folder: Path, name: str) -> None:
    """An untrained VAE of the shape of a preset, 'sd-f8d4' or 'tiny', where its weights would be."""
    from usp_mm.vaes.tiny import save_vae

    save_vae(random_vae(name), folder)


def random_vae(name: str) -> Any:
    """diffusers' AutoencoderKL of that shape, untrained."""
    from usp_mm.presets import VAES
    from usp_mm.vaes.tiny import make_tiny_vae

    if name == 'tiny':
        return make_tiny_vae()
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=('DownEncoderBlock2D',) * 4,
        up_block_types=('UpDecoderBlock2D',) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=VAES[name]['channels'],
        scaling_factor=VAES[name]['scale'],
    )


def training_data(cfg: Any, steps: int, folder: Path, task: str, size: int, cached: bool) -> None:
    """Write what the config trains on."""
    dataset, num = cfg.train_dataloader.dataset, cfg.train_dataloader.batch_size * steps
    if cached:
        write_random_cache(folder / 'cache', num, size)
        dataset.data_root = str(folder / 'cache')
    elif task == 'segment':
        paths = [folder / 'ade' / kind / 'training' for kind in ('images', 'annotations')]
        write_photos(paths[0], num, 4 * size // 3, size, labels=paths[1])
        dataset.data_root = str(folder / 'ade')
    else:
        photos(folder, num, size)
        dataset.update(data_root=str(folder), data_prefix='photos')


def photos(folder: Path, num: int, size: int) -> Path:
    """A folder of one class folder, in the proportions of ImageNet's images to crops of 224 pixels."""
    write_photos(folder / 'photos' / 'class', num, 500 * size // 224, 375 * size // 224)
    return folder / 'photos'


def cache_ms(vae: str, folder: Path, size: int, loader: Any) -> float:
    """Milliseconds an image of writing a latent cache of images and their mirror images."""
    from mmengine.device import get_device

    from usp_mm.datasets.latent_cache.plan import CacheSpec
    from usp_mm.datasets.latent_cache.writer import write_cache
    from usp_mm.vaes import build_codec

    codec, num = build_codec(vae, path=folder / 'vae'), 2 * loader.batch_size
    spec = CacheSpec(size, encode_batch_size=min(16, num))  # which is always filled up
    root, outs = photos(folder, num, size), iter((folder / 'once', folder / 'again'))

    def write() -> None:
        write_cache(str(root), next(outs), codec, spec, num_workers=loader.num_workers, device=get_device())

    return warm_ms(write) / num


def warm_ms(function: Callable[[], Any]) -> float:
    """Milliseconds of a call; on a GPU, of the second."""
    import torch

    if torch.cuda.is_available():
        function()
    start = now()
    function()
    return 1000 * (now() - start)
