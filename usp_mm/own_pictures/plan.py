"""The sizes of a training on own pictures, chosen for the folder and the machine."""

import math
import os
import time
from dataclasses import dataclass, replace
from typing import Any

from usp_mm.config.options import LaptopVAETraining
from usp_mm.presets import ARCHS, VAES


@dataclass(frozen=True)
class Machine:
    """What trains: CPU cores, and whether there is a GPU."""

    cores: int
    gpu: bool

    @classmethod
    def here(cls) -> 'Machine':
        """This machine; OMP_NUM_THREADS limits the cores, as it does torch's threads."""
        import torch

        return cls(int(os.environ.get('OMP_NUM_THREADS') or len(os.sched_getaffinity(0))), torch.cuda.is_available())


@dataclass(frozen=True)
class Plan:
    """The sizes of a training.

    Attributes:
        vae: Preset of the VAE.
        vae_path: Its folder; None takes the preset's own source, or for 'laptop' trains one.
        arch: Size of the encoder and of the generator, a key of `usp_mm.presets.ARCHS`.
        img_size: Side of the crops, in pixels.
        batch_size: Pictures a step, of pretraining, probe and generator.
        crops: Random crops that are cached of each training picture, each also mirrored; 0 is only the centre crop.
        shard_size: Pictures in each file of the latent cache.
        vae_steps: Training steps of the laptop VAE.
        epochs: Of pretraining.
        probe_epochs: Of the linear probe.
        steps: Training steps of the generator.
        lr, generator_lr: Peak learning rates.
    """

    vae: str
    vae_path: str | None
    arch: str
    img_size: int
    batch_size: int
    crops: int
    shard_size: int
    vae_steps: int
    epochs: int
    probe_epochs: int
    steps: int
    lr: float
    generator_lr: float

    @property
    def tokens(self) -> int:
        """Number of patches of a picture."""
        row = VAES[self.vae]
        return (self.img_size // (row['stride'] * row['patch_size'])) ** 2

    def iterations(self, num_pictures: int) -> int:
        """Steps of pretraining."""
        return self.epochs * max(1, num_pictures // self.batch_size)


def choose_plan(num: int, shorter_side: int, machine: Machine, vae: str = 'laptop', vae_path: str | None = None) -> Plan:
    """Choose the sizes for `num` training pictures whose median shorter side has `shorter_side` pixels."""
    # A GPU has the time for a network that a thousand pictures can still fill; 'tiny' is what two cores train in minutes.
    arch = 'tiny' if not machine.gpu or num < 1000 else 'small' if num < 100_000 else 'base'
    # Twice the pixels on a side are four times the tokens and the time. Enlarged pictures teach nothing.
    largest = 64 if not machine.gpu else 128 if num < 1000 else 256
    img_size = max(32, min(largest, 32 * (shorter_side // 32)))
    # A batch must not be larger than the data; powers of two, as the learning rates were tried with.
    batch_size = min(256 if machine.gpu and num >= 5000 else 32, 2 ** int(math.log2(num)))
    # Small data need crops against overfitting; with many pictures each is seen a few times only, and the cache stays small.
    crops = 4 if num < 1000 else 0
    # A killed `usp cache write` loses at most one file, and several processes share the files.
    shard_size = min(16384, max(256, num // 16))
    # What two cores do in a quarter of an hour: restorations are recognisable after 800 steps of 'tiny', samples after 500
    # have the colours of their class and no shapes yet. At least two epochs, of which one warms up.
    pretrain_steps, generator_steps = (1500, 3500) if not machine.gpu else (20_000, 40_000)
    epochs = max(2, round(pretrain_steps * batch_size / num))
    return Plan(
        vae=vae,
        vae_path=vae_path,
        arch=arch,
        img_size=img_size,
        batch_size=batch_size,
        crops=crops,
        shard_size=shard_size,
        vae_steps=LaptopVAETraining().steps,
        epochs=epochs,
        probe_epochs=probe_epochs(num),
        steps=generator_steps,
        # MAE's 1.5e-4 and DiT's 1e-4 for a batch of 256 are for 'base' and larger; 'tiny' takes more.
        lr=1e-3 if arch == 'tiny' else 6e-4,
        generator_lr=1e-3 if arch == 'tiny' else 2e-4,
    )


def probe_epochs(num: int) -> int:
    """A linear layer is trained after some 10,000 pictures; its warm-up takes one epoch."""
    return max(2, min(60, 10_000 // num))


def override(plan: Plan, num: int, flags: dict[str, Any]) -> Plan:
    """The plan with a user's numbers in place of the chosen ones.

    Args:
        plan: The chosen plan.
        num: Number of training pictures.
        flags: Some of img_size, batch_size, epochs, steps and vae_steps; None leaves the plan's.

    Raises:
        ValueError: A number does not fit the pictures or the VAE.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    row = VAES[plan.vae]
    side, least = row['stride'] * row['patch_size'], dict(img_size=16, batch_size=2, epochs=2, steps=2, vae_steps=2)
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f'--{name.replace("_", "-")} {value} must be {least[name]} or more')
    if given.get('batch_size', 0) > num:
        raise ValueError(f'--batch-size {given["batch_size"]} is more than the {num} training pictures')
    if given.get('img_size', 0) % side:
        raise ValueError(f"--img-size {given['img_size']} must be a multiple of {side}, a patch of VAE '{plan.vae}'")
    if 'batch_size' in given and 'epochs' not in given:
        given['epochs'] = max(2, round(plan.epochs * given['batch_size'] / plan.batch_size))
    if 'epochs' in given:
        given['probe_epochs'] = min(plan.probe_epochs, given['epochs'])
    return replace(plan, **given)


#: CPU seconds on one core, with 'tiny' and the laptop VAE at 64 pixels and batch 32, measured on a busy machine.
SECONDS = dict(
    command=8.0,  # start of a command: imports
    megapixel=0.03,  # decoding and reducing
    vae_step=0.08,
    view=0.002,  # a crop through the encoder of the VAE
    pretrain=0.003,  # a picture
    probe=0.002,
    generate=0.0066,
)
#: VAE -> time of a view at 64 pixels, as a multiple of the laptop VAE's; any other takes what sd-f8d4 does.
ENCODERS = {'laptop': 1, 'tiny': 1, 'taesd': 9, 'sd-f8d4': 54}
#: Of the time of a training step, the share of its forward pass.
FORWARD = 1 / 3
#: Rows of samples, one a class, and pictures of each.
ROWS, PICTURES = 8, 8
#: `model.sampler.num_steps` of the generator's config.
SAMPLER_STEPS = 50
#: A GPU's advantage over one core that the estimate assumes; not measured.
GPU_SPEED = 50.0


def estimate(
    plan: Plan, num: int, num_classes: int, megapixels: float, machine: Machine, speed: float = 1.0
) -> dict[str, dict[str, float]]:
    """Estimate the seconds of each part's commands, by `SECONDS`.

    Args:
        plan: The sizes.
        num: Number of training pictures.
        num_classes: Number of classes; with one class there is no probe.
        megapixels: Of all pictures.
        machine: What trains.
        speed: Of a core of this machine, as a multiple of the one that was measured.

    Returns:
        Part -> command, as it is printed when it runs -> seconds.
    """
    core = SECONDS['command'] / speed
    # Small batches keep two cores busy only half of the time: 1.5 times as fast as one.
    cores = 1 + 0.5 * (min(machine.cores, 8) - 1)
    rate = speed * (GPU_SPEED if machine.gpu else cores)
    area, size = (plan.img_size / 64) ** 2, plan.tokens / 64 * _size(plan.arch)
    views = num * (2 * max(1, plan.crops) + 0.1)
    encode = area * SECONDS['view'] * ENCODERS.get(plan.vae, ENCODERS['sd-f8d4'])
    step = plan.batch_size * size / rate
    seconds: dict[str, dict[str, float]] = {
        'pictures': {'pictures': megapixels * SECONDS['megapixel'] / speed / machine.cores},
        'vae': {},
        'cache': {'cache train': core + views * encode / rate, 'cache val': core + num * 0.1 * encode / rate},
        'pretrain': {
            'pretraining': core + plan.iterations(num) * step * SECONDS['pretrain'],
            'restoration': core,
            'encoder folder': core,
        },
        'probe': {},
        'generate': {
            'generator': core + plan.steps * step * SECONDS['generate'],
            'samples': core + _evaluations(num_classes) * size * SECONDS['generate'] * FORWARD / rate,
            'generator folder': core,
        },
    }
    if plan.vae == 'laptop' and plan.vae_path is None:
        seconds['vae']['VAE'] = core + plan.vae_steps * SECONDS['vae_step'] / speed / cores
    if num_classes > 1:
        probed = plan.probe_epochs * num * size * SECONDS['probe'] / rate
        seconds['probe'] = {'linear probe': core + probed, 'nearest neighbours': core}
    return seconds


def _evaluations(num_classes: int) -> int:
    """How often the network runs on a picture when the samples are drawn: twice a step with guidance."""
    return min(num_classes, ROWS) * PICTURES * SAMPLER_STEPS * (2 if num_classes > 1 else 1)


def _size(arch: str) -> float:
    """How many times as many weights a network has as 'tiny'."""
    tiny, other = (ARCHS[name]['depth'] * ARCHS[name]['embed_dims'] ** 2 for name in ('tiny', arch))
    return other / tiny


#: GFLOPS of `core_speed` on the core of the table.
MEASURED_GFLOPS = 60.0


def core_speed() -> float:
    """Speed of a core now, as a multiple of the one on which the table of times was measured: a short multiplication."""
    import torch

    a, b = torch.randn(512, 512), torch.randn(512, 512)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(2):
        start, turns = time.perf_counter(), 0
        while time.perf_counter() - start < 0.3:
            a @ b
            turns += 1
    torch.set_num_threads(threads)
    return turns * 2 * 512**3 / (time.perf_counter() - start) / 1e9 / MEASURED_GFLOPS
