"""Values and defaults that command-line options share with the code behind them. Importing this module is fast."""

import os
from dataclasses import dataclass

#: A generator's two sets of weights: the moving average, and the weights that the optimizer updates.
WEIGHTS = ('ema', 'model')

#: Processes that decode images: four, or as many as there are cores.
DECODERS = min(4, os.cpu_count() or 1)
#: Where `usp train --tracker` sends a run.
TRACKERS = ('tensorboard', 'wandb', 'mlflow')

#: Layout of an image folder -> argument `with_label` of `ImageFolder`.
LAYOUTS = {'classes': True, 'flat': False}

#: `dtype` of a latent cache -> the types in which the mean and the log-variance are stored.
STORAGES: dict[str, dict[str, str]] = {
    'float16': dict(mean='float16', logvar='uint8'),  # smallest: 24 bits per latent number
    'float16-full': dict(mean='float16', logvar='float16'),
    'bfloat16': dict(mean='bfloat16', logvar='bfloat16'),
    'float32': dict(mean='float32', logvar='float32'),  # exact
}
#: What a cache stores of each latent: mean and log-variance, or only the mean.
STORES = ('moments', 'mean')

#: Peak of an H100 (SXM) in dense bfloat16 with float32 accumulation, in operations per second (NVIDIA's data sheet).
H100_BF16 = 989.4e12
#: Share of the peak that a training is assumed to reach.
UTILISATION = 0.4


@dataclass(frozen=True)
class DemoData:
    """How many images of digits and scenes to make.

    Attributes:
        train_digits, val_digits: Images in the ImageNet layout, drawn evenly from all classes; together at most 1,797.
        train_scenes, val_scenes: Images in the ADE20K layout; a scene shows only digits of its own split.
        digit_size, scene_size: Sides of the images in pixels.
        seed: Seed of the split and of the scenes.
    """

    train_digits: int = 1500
    val_digits: int = 297
    train_scenes: int = 400
    val_scenes: int = 100
    digit_size: int = 64
    scene_size: int = 128
    seed: int = 0


@dataclass(frozen=True)
class DemoCrops:
    """How many crops of photographs to make.

    Attributes:
        train_crops, val_crops: Crops of each photograph.
        crop_size: Side of a crop in pixels, from 16 to 128.
        seed: Seed of the crops' positions and sizes.
    """

    train_crops: int = 400
    val_crops: int = 80
    crop_size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class DemoEmoji:
    """Which emoji to draw.

    Attributes:
        emoji_size: Side of an image in pixels, from 16 to 256.
        skin_tones: Whether to add the variants of people and hands in five skin tones, which doubles the number of images.
    """

    emoji_size: int = 64
    skin_tones: bool = False


@dataclass(frozen=True)
class DemoScenes:
    """How many scenes of emoji to make.

    Attributes:
        train_scenes, val_scenes: Images in COCO's layout; a scene shows only emoji of its own split.
        scene_size: Side of the images in pixels, from 64 to 512.
        seed: Seed of the scenes.
    """

    train_scenes: int = 400
    val_scenes: int = 100
    scene_size: int = 128
    seed: int = 0


#: File beside the weights of a VAE that was trained here, with the numbers of its training.
VAE_NUMBERS = 'training.json'


@dataclass(frozen=True)
class VAETraining:
    """How to train a VAE.

    Attributes:
        steps: Optimizer steps.
        batch_size: Images per step.
        lr: Peak learning rate of AdamW, warmed up and annealed to zero in one cycle.
        size: Side of the random crops in pixels, a multiple of the stride; smaller images are enlarged.
        seed: Seed of the weights, the data order, the crops, the flips and the noise.
    """

    steps: int
    batch_size: int
    lr: float
    size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class TinyVAETraining(VAETraining):
    """How to train the VAE of preset 'tiny'; see `VAETraining`.

    Attributes:
        kl_weight: Weight of the KL divergence (mean over latent numbers); the squared error (mean over pixels in
            [-1, 1]) has weight 1.
    """

    steps: int = 400
    batch_size: int = 16
    lr: float = 4e-3
    kl_weight: float = 1e-4


@dataclass(frozen=True)
class LaptopVAETraining(VAETraining):
    """How to train the VAE of preset 'laptop'; see `VAETraining`."""

    steps: int = 2000
    batch_size: int = 8
    lr: float = 3e-3
