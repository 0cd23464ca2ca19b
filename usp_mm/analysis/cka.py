"""Centred kernel alignment of the blocks of two networks (Kornblith et al., arXiv 1905.00414, section 3).

It asks Figure 4's question of USP without a probe: in which blocks does a generator keep what its encoder computes?

Shape legend: M examples, D and E widths of two networks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor
from tqdm import tqdm

from usp_mm.models import DiT
from usp_mm.models.attention_maps import evenly
from usp_mm.probing.data import ProbeData, in_order, open_data
from usp_mm.probing.features import FrozenModel, check_time, patch_tokens
from usp_mm.vaes.record import compare_vae, vae_record

POOLS = ('tokens', 'mean')
#: Largest size of the features of one network, in GiB of memory.
LARGEST = 8.0


def linear_cka(x_MD: Tensor, y_ME: Tensor) -> float:
    """Linear CKA of two sets of features of the same examples, biased as in the paper (equations 2 to 4).

    HSIC(K, L) / √(HSIC(K, K)·HSIC(L, L)) with K = XXᵀ and L = YYᵀ, which for centred features is ‖YᵀX‖² / (‖XᵀX‖·‖YᵀY‖) in
    Frobenius norms. It does not change under rotations and a common scale of either set.

    Returns:
        A number in [0, 1], 1 for equal features. Independent normal features of widths D and E have about
        √(D·E / ((M + D)·(M + E))), which is small only with many more examples than numbers.

    Raises:
        ValueError: The sets are not matrices with the same number M ≥ 2 of examples, are not finite, or one is constant.
    """
    if x_MD.ndim != 2 or y_ME.ndim != 2 or len(x_MD) != len(y_ME) or len(x_MD) < 2:
        raise ValueError(f'CKA of {list(x_MD.shape)} and {list(y_ME.shape)}: expected two matrices of the same 2 or more rows')
    return float(cka_matrix([x_MD], [y_ME])[0, 0])


def cka_matrix(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """`linear_cka` of each of the first with each of the second features: float64[len(first), len(second)].

    Raises:
        ValueError: See `linear_cka`.
    """
    squares = [torch.tensor([_cross(x, x) for x in some], dtype=torch.float64) for some in (first, second)]
    norms = squares[0].outer(squares[1]).sqrt()
    if not bool((norms > 0).all() & norms.isfinite().all()):
        raise ValueError('CKA of features that are all alike, or not finite: check that the training did not diverge')
    return torch.tensor([[_cross(x, y) for y in second] for x in first], dtype=torch.float64) / norms


def _cross(x_MD: Tensor, y_ME: Tensor) -> float:
    """‖YᵀX‖² of centred features, (M - 1)² times HSIC."""
    x, y = x_MD.double(), y_ME.double()
    return float(((y - y.mean(0)).T @ (x - x.mean(0))).square().sum())


@dataclass(frozen=True)
class CKASettings:
    """How features are taken.

    Attributes:
        num: Number of samples, spread evenly over the data.
        pool: 'tokens' takes each patch token for an example, 'mean' the mean over the patch tokens of a sample.
        batch_size: Number of samples at a time.

    Raises:
        ValueError: A value is invalid.
    """

    num: int = 256
    pool: str = 'tokens'
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise ValueError(f'pool={self.pool!r} must be one of {POOLS}')
        if self.num < 2 or self.batch_size < 1:
            raise ValueError(f'num={self.num} must be 2 or more, and batch_size={self.batch_size} 1 or more')


def frozen(model: Any, t: float | None = None, seed: int = 0) -> FrozenModel:
    """The network of a model of `usp_mm.from_pretrained`, as features are taken from it.

    Args:
        model: An encoder or a generator; of a generator, the weights that it samples with.
        t: Time of a generator; None for the time of clean data. An encoder sees clean latents in any case.
        seed: Seed of the noise.

    Raises:
        ValueError: The time is out of the generator's range.
    """
    module = model.model
    objective = getattr(module, 'objective', None)
    network = module.backbone if objective is None else module.network()
    time = None if objective is None else check_time(objective, t)
    return FrozenModel(network.eval().requires_grad_(False), module.data_preprocessor, objective, time, seed=seed)


def check_generator(model: Any) -> None:
    """Raise a ValueError unless a model of `usp_mm.from_pretrained` is a generator."""
    if not hasattr(model, 'sample'):
        raise ValueError(f'{model!r} is no generator: give encoders as --against')


def open_held_out(model: Any, folder: Path) -> ProbeData:
    """Data for a model of `usp_mm.from_pretrained`, see `usp_mm.probing.data.open_data`; classes are not needed."""
    return open_data(Config(dict(model=model.source.cfg['model'])), folder, training=False, labelled=False)


def check_same_latents(models: Mapping[str, Any], data: ProbeData) -> None:
    """Refuse models of other VAEs than the data's or than each other's, and generators of other latents than the first's.

    Args:
        models: Models of `usp_mm.from_pretrained` by name; the first is the generator that the data were opened for.

    Raises:
        ValueError: A VAE or a size differs.
    """
    cached = data.dataset.manifest['vae_weight_hash'] if data.cached else None
    first = next(iter(models.values()))
    ours = vae_record(first.model.data_preprocessor.codec, cached)
    size = first.model.denoiser.geometry
    shape = (size.channels, size.latent_size)
    for name, model in models.items():
        found = model.source.vae or vae_record(model.model.data_preprocessor.codec, cached)
        compare_vae(found, ours, name, warn=False)
        network = getattr(model.model, 'denoiser', None)
        if network is not None and (network.geometry.channels, network.geometry.latent_size) != shape:
            raise ValueError(f"'{name}' is for images of {network.geometry.img_size} pixels, the others of {size.img_size}")
        patch = (network or model.model.backbone).geometry.patch_size
        if patch != size.patch_size:
            raise ValueError(f"'{name}' has patches of {patch} latent pixels, the others of {size.patch_size}")


@torch.no_grad()
def all_features(model: FrozenModel, data: ProbeData, settings: CKASettings) -> list[Tensor]:
    """Features of each block, float32[M, D] on the CPU, M = samples or tokens; with the noise of `model.t` by sample number.

    Raises:
        ValueError: The features do not fit into `LARGEST`, or there are fewer than two samples.
    """
    indices = evenly(len(data), settings.num)
    if len(indices) < 2:
        raise ValueError(f"'{data.path}' has {len(data)} samples: give 2 or more")
    _check_size(model, len(indices), settings)
    layers, found = list(range(1, model.depth + 1)), []
    batches = [[indices[i] for i in batch] for batch in in_order(len(indices), settings.batch_size)]
    with tqdm(total=len(indices), desc='features', unit='img', leave=False) as progress:
        for batch in data.loader(batches):
            prepared = model.preprocessor(batch, training=False)
            latents, t = model.at_time(prepared['inputs'], prepared['data_samples'], split=1)
            tokens = patch_tokens(model.network, latents, layers, t)
            found.append([(x.flatten(0, 1) if settings.pool == 'tokens' else x.mean(1)).float().cpu() for x in tokens])
            progress.update(len(latents))
    return [torch.cat(one) for one in zip(*found, strict=True)]


def _check_size(model: FrozenModel, num: int, settings: CKASettings) -> None:
    rows, columns = model.network.geometry.grid
    examples = num * (rows * columns if settings.pool == 'tokens' else 1)
    size = examples * model.depth * model.network.embed_dims * 4 / 2**30
    if size > LARGEST:
        raise ValueError(
            f'features of {num} samples take {size:.1f} GiB, more than {LARGEST:g}: take fewer (--num), or pool their tokens '
            '(--pool mean)'
        )


def compare_blocks(against: Sequence[Tensor], features: Sequence[Tensor], num: int) -> dict[str, Any]:
    """Compare the blocks of a network with those of another one.

    Args:
        against, features: Features of each block of both, of the same `num` samples in the same order.
        num: Number of samples.

    Returns:
        dict(cka, other_samples): lists with a row for each block of `against`. In 'other_samples' each sample meets another
        one half the data away: what remains is chance, and what all samples share, such as the positions of tokens.
    """
    shift = num // 2 * (len(features[0]) // num)
    moved = [x.roll(shift, 0) for x in features]
    return dict(cka=cka_matrix(against, features).tolist(), other_samples=cka_matrix(against, moved).tolist())


def describe(model: FrozenModel) -> dict[str, Any]:
    """Facts about a network for a report; `t` is None for an encoder."""
    kind = type(model.network).__name__
    return dict(network=kind, depth=model.depth, t=model.t, kind='generator' if isinstance(model.network, DiT) else 'encoder')
