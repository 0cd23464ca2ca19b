"""Values and defaults of command-line options that the code behind them shares; importing them imports nothing else."""

from dataclasses import dataclass

#: Sets of a generator's weights: averaged, and as they were trained.
WEIGHTS = ('ema', 'model')

#: How a folder of images is read -> `with_label` of `ImageFolder`.
LAYOUTS = {'classes': True, 'flat': False}

#: What a latent cache's `dtype` stores, in bits a number: the mean and the log-variance.
STORAGES: dict[str, dict[str, str]] = {
    'float16': dict(mean='float16', logvar='uint8'),  # smallest: 24 bits a latent number
    'float16-full': dict(mean='float16', logvar='float16'),
    'bfloat16': dict(mean='bfloat16', logvar='bfloat16'),
    'float32': dict(mean='float32', logvar='float32'),  # exact
}
#: Part of a latent that a cache holds.
STORES = ('moments', 'mean')

#: Of an H100 (SXM), dense bfloat16 with float32 accumulation, in operations a second (NVIDIA's data sheet).
H100_BF16 = 989.4e12
#: Share of it that trainings are taken to reach.
UTILISATION = 0.4


@dataclass(frozen=True)
class DemoData:
    """How many digits and scenes to make.

    Attributes:
        train_digits, val_digits: images of the ImageNet layout, of 1,797 together at most, drawn evenly from all classes.
        train_scenes, val_scenes: images of the ADE20K layout; scenes of a split show digits of that split only.
        digit_size, scene_size: sides in pixels.
        seed: of the split and the scenes.
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
        train_crops, val_crops: crops of each photograph.
        crop_size: side in pixels, from 16 to 128.
        seed: of places and sizes.
    """

    train_crops: int = 400
    val_crops: int = 80
    crop_size: int = 64
    seed: int = 0


@dataclass(frozen=True)
class DemoEmoji:
    """Which emoji to draw.

    Attributes:
        emoji_size: side in pixels, from 16 to 256.
        skin_tones: also the variants of people and hands in five skin tones, which are as many pictures again as all others.
    """

    emoji_size: int = 64
    skin_tones: bool = False


@dataclass(frozen=True)
class VAETraining:
    """How to train an autoencoder.

    Attributes:
        steps: optimizer steps.
        batch_size: images a step.
        lr: peak learning rate of AdamW, warmed up and annealed to zero in one cycle.
        size: side of the random crops in pixels, a multiple of the stride; smaller images are enlarged.
        seed: of weights, data order, crops, flips and noise.
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
        kl_weight: of the mean KL divergence per latent number, against the mean squared error per pixel of [-1, 1].
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
