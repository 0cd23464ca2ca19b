"""Train a VAE on folders of images on the CPU; shared by all recipes."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from mmengine.logging import MMLogger
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from usp_mm.config.options import VAE_NUMBERS, VAETraining
from usp_mm.fileio.atomic import write_folder, write_json
from usp_mm.images import images_below, load_image


@dataclass(frozen=True)
class VAEReport:
    """Result of a training: mean PSNR in dB on held-out images, 1 / standard deviation of the latents, and training time."""

    psnr: float
    scaling_factor: float
    seconds: float


class Recipe(Protocol):
    """One kind of VAE; images are float32[N, 3, size, size] in [-1, 1]."""

    name: str
    stride: int

    def make(self, batches: Iterator[Tensor], seed: int) -> Any:
        """Build the initial VAE, one of diffusers. `batches` yields batches of training images without end."""

    def loss(self, vae: Any, images: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss, and the values that the progress bar shows."""

    def latents(self, vae: Any, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Encode images to unscaled latents; without a generator, these are the posterior's mean."""


def save_vae(vae: Any, out: str | Path, numbers: Mapping[str, float] | None = None) -> None:
    """Write a VAE of diffusers to a folder, atomically, and `numbers` to training.json beside it.

    Raises an OSError if `out` exists and is not empty.
    """
    with write_folder(Path(out)) as folder:
        vae.save_pretrained(folder)
        if numbers is not None:
            write_json(folder / VAE_NUMBERS, dict(numbers))


def train_vae(recipe: Recipe, data: str | Path | Sequence[str | Path], out: str | Path, config: VAETraining) -> VAEReport:
    """Train on the images under `data` and write `out`, a folder in diffusers' format.

    The result depends only on the images, the config and the number of threads.

    Args:
        recipe: The kind of VAE.
        data: One or more folders of images, which are searched recursively.
        out: A folder that doesn't exist or is empty.
        config: Settings of the training.

    Raises:
        FileExistsError: `out` isn't empty.
        FileNotFoundError: There are fewer than two images.
        ValueError: `size` is not a multiple of the stride, or the number of steps or images per step is below 1.
    """
    out, start = Path(out), time.monotonic()
    _check(recipe, out, config)
    train, held_out = _split(_find_images([data] if isinstance(data, (str, Path)) else data), config.seed)
    vae = recipe.make(_batches(train, config, torch.Generator().manual_seed(config.seed)), config.seed)
    _optimize(recipe, vae, train, config)
    vae.eval()
    vae.register_to_config(scaling_factor=_scaling_factor(recipe, vae, train[:256], config))
    psnr = _psnr(recipe, vae, held_out, config)
    numbers = dict(psnr=psnr, held_out=len(held_out), steps=config.steps, seed=config.seed)
    save_vae(vae.to(memory_format=torch.contiguous_format), out, numbers)
    report = VAEReport(psnr, vae.config.scaling_factor, time.monotonic() - start)
    MMLogger.get_current_instance().info(
        f'{out}: PSNR {psnr:.2f} dB on {len(held_out)} held-out images, scaling factor {report.scaling_factor:.4f}, '
        f'{config.steps} steps in {report.seconds:.0f} s'
    )
    return report


def _check(recipe: Recipe, out: Path, config: VAETraining) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f'{out} is not empty: remove it to train again, or choose another folder')
    if config.size % recipe.stride or config.size < recipe.stride:
        raise ValueError(f'size={config.size} must be a multiple of the stride, {recipe.stride}')
    for name in ('steps', 'batch_size'):
        if getattr(config, name) < 1:
            raise ValueError(f'{name}={getattr(config, name)} must be at least 1')


def _batches(images: list[Path], config: VAETraining, generator: torch.Generator) -> Iterator[Tensor]:
    """Yield batches of random crops without end; every image comes once before any comes again."""
    order = torch.empty(0, dtype=torch.int64)
    while True:
        while len(order) < config.batch_size:
            order = torch.cat([order, torch.randperm(len(images), generator=generator)])
        chosen, order = order[: config.batch_size], order[config.batch_size :]
        yield torch.stack([_crop(images[i], config.size, generator) for i in chosen])


def _optimize(recipe: Recipe, vae: Any, images: list[Path], config: VAETraining) -> None:
    generator = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.lr, total_steps=config.steps, pct_start=0.1)
    progress = tqdm(range(config.steps), desc=f'{recipe.name} VAE', unit='step')
    for step, batch in zip(progress, _batches(images, config, generator), strict=False):
        loss, shown = recipe.loss(vae, batch, generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            progress.set_postfix({key: f'{value.item():.4f}' for key, value in shown.items()})


def _find_images(folders: Sequence[str | Path]) -> list[Path]:
    for folder in folders:
        if not Path(folder).is_dir():
            raise FileNotFoundError(f'{folder} is not a folder of images')
    images = [path for folder in folders for path in images_below(folder)]
    if len(images) < 2:
        raise FileNotFoundError(f'{", ".join(map(str, folders))}: found {len(images)} images, need 2')
    return images


def _split(images: list[Path], seed: int) -> tuple[list[Path], list[Path]]:
    """Shuffle the images and split them into training and held-out images; one in ten, at most 100, is held out."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    num = min(100, max(1, len(images) // 10))
    return [images[i] for i in order[num:]], [images[i] for i in order[:num]]


@lru_cache(maxsize=8192)
def _read(path: Path, size: int) -> Tensor:
    """Read an image as uint8[3, H, W], enlarged if necessary so that no side is below `size`."""
    image = load_image(path)
    if min(image.size) < size:
        factor = size / min(image.size)
        image = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _crop(path: Path, size: int, generator: torch.Generator | None = None) -> Tensor:
    """Read a random crop, perhaps flipped, or the central crop without a generator: float32[3, size, size] in [-1, 1]."""
    image = _read(path, size)
    room = [side - size for side in image.shape[1:]]
    if generator is None:
        y, x, flip = room[0] // 2, room[1] // 2, 0
    else:
        y, x, flip = (int(torch.randint(n, (), generator=generator)) for n in (room[0] + 1, room[1] + 1, 2))
    image = image[:, y : y + size, x : x + size]
    return (image.flip(2) if flip else image).float() / 127.5 - 1


@torch.no_grad()
def _scaling_factor(recipe: Recipe, vae: Any, images: list[Path], config: VAETraining) -> float:
    generator = torch.Generator().manual_seed(config.seed)
    batches = torch.stack([_crop(path, config.size) for path in images]).split(config.batch_size)
    latents = torch.cat([recipe.latents(vae, batch, generator) for batch in batches])
    return round(1 / latents.std().item(), 6)


@torch.no_grad()
def _psnr(recipe: Recipe, vae: Any, images: list[Path], config: VAETraining) -> float:
    """Mean over the images of the PSNR in dB, 10 log10(2² / MSE)."""
    errors = []
    for batch in torch.stack([_crop(path, config.size) for path in images]).split(config.batch_size):
        decoded = vae.decode(recipe.latents(vae, batch)).sample.clamp(-1, 1)
        errors.append((decoded - batch).square().mean((1, 2, 3)))
    return float((10 * torch.log10(4 / torch.cat(errors).clamp(min=1e-10))).mean())
