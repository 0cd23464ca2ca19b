"""Features of a frozen USP encoder, DiT or SiT: the pooled tokens after its blocks.

A denoiser runs without a class and, by default, on clean latents at the time of clean data: t = 0 of DiT, whose time counts
noising steps, and t = 1 of SiT, whose time runs from noise to data (Figure 4's "t = 0 and the null class").

Shape legend: N samples, C×h×w latent, L tokens, D width.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from torch import Tensor, nn

from usp_mm.fileio.strict_loading import load_exactly
from usp_mm.fileio.weights import Checkpoint, read_trained
from usp_mm.functional import random
from usp_mm.functional.ddpm import diffuse
from usp_mm.functional.flow import interpolate
from usp_mm.models import DiT, USPViT
from usp_mm.models.data_preprocessor import preprocessor_config
from usp_mm.models.geometry import share_vae
from usp_mm.models.objectives import DDPMObjective, FlowObjective, Objective
from usp_mm.models.random_keys import sample_keys
from usp_mm.models.weight_transfer import encoder_weights
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import weights_name
from usp_mm.vaes.record import check_model_vae

POOLS = ('mean', 'cls')
#: Where the two sets of a generator's weights are in its checkpoint.
PREFIXES = {'ema': 'denoiser_ema.module.', 'model': 'denoiser.'}
#: Models that can be probed -> their network's part of the config.
_PARTS = {'USP': 'backbone', 'USPClassifier': 'backbone', 'LatentDiffusionGenerator': 'denoiser'}


@torch.no_grad()
def block_features(
    model: USPViT | DiT, latents: Tensor, layers: Sequence[int], t: float | Tensor | None = None, pool: str = 'mean'
) -> list[Tensor]:
    """Pooled tokens after one or more blocks, from a single run of the model.

    The output of an encoder's last block is taken after the final norm.

    Args:
        model: An encoder, or a DiT or SiT that was trained with class dropout, in eval mode.
        latents: Scaled latents [N, C, h, w], with the noise of time `t` already added.
        layers: Numbers of blocks after which to take tokens, 1 … depth, in any order.
        t: Time for a DiT or SiT: one value, or one per sample [N].
        pool: 'mean' over the patch tokens, or 'cls', the class token of an encoder.

    Returns:
        float32[N, D] for each of `layers`.

    Raises:
        ValueError: A block or pool does not exist, a denoiser gets no time, or an encoder gets one.
    """
    check_layers(layers, model.num_layers)
    check_pool(model, pool)
    if pool == 'cls' and isinstance(model, USPViT):
        _check_no_time(t)
        return [x[:, 0].float() for x in model.tokens_after(latents, layers)]
    return [x.float().mean(1) for x in patch_tokens(model, latents, layers, t)]


@torch.no_grad()
def patch_tokens(model: USPViT | DiT, latents: Tensor, layers: Sequence[int], t: float | Tensor | None = None) -> list[Tensor]:
    """Patch tokens after blocks, [N, L, D] each, without the class token; arguments and errors as in `block_features`."""
    if not isinstance(model, DiT):
        _check_no_time(t)
        return [x[:, 1:] for x in model.tokens_after(latents, layers)]
    if t is None:
        raise ValueError(f'{type(model).__name__} needs a time t')
    if not model.class_dropout:
        raise ValueError('features need the "no class" label, but denoiser.class_dropout is 0')
    t = torch.as_tensor(t, device=latents.device).expand(len(latents))
    null = torch.full((len(latents),), model.null_label, device=latents.device)
    _, hidden = model(latents, t, null, return_hidden=sorted(set(layers)))
    return [hidden[k] for k in layers]


def _check_no_time(t: float | Tensor | None) -> None:
    if t is not None:
        raise ValueError(f't={t}: an encoder has no time')


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Raise ValueError unless `layers` are blocks from 1 to `depth`; repetitions are allowed."""
    if not layers:
        raise ValueError(f'no layer: name blocks from 1 to {depth}')
    for k in layers:
        if k not in range(1, depth + 1):
            raise ValueError(f'layer {k} is not there: the model has blocks 1 to {depth}')


def check_pool(model: nn.Module, pool: str) -> None:
    """Raise ValueError if a pool is unknown or the model does not have it."""
    if pool not in POOLS:
        raise ValueError(f'pool={pool!r} must be one of {POOLS}')
    if pool == 'cls' and isinstance(model, DiT):
        raise ValueError(f"pool='cls': a {type(model).__name__} has no class token, use 'mean'")


def clean_time(objective: Objective) -> float:
    """The time of clean data: 0 where times are noising steps (DiT), 1 where they run from noise to data (SiT)."""
    return 0 if objective.integer_times else 1.0


def check_time(objective: Objective | None, t: float | None) -> float | None:
    """The requested time, or that of clean data if None; None for an encoder, which has no objective.

    Raises:
        ValueError: The time is outside the objective's range.
    """
    if objective is None:
        if t is not None:
            raise ValueError(f't={t}: an encoder has no time, leave it out')
        return None
    if t is None:
        return clean_time(objective)
    if objective.integer_times:
        assert isinstance(objective, DDPMObjective)
        last = objective.num_steps - 1
        if t != int(t) or not 0 <= t <= last:
            raise ValueError(f't={t} is out of range: a DiT takes whole steps from 0 (clean) to {last} (noise)')
        return int(t)
    if not 0 <= t <= 1:
        raise ValueError(f't={t} is out of range: a SiT takes times from 0 (noise) to 1 (clean)')
    return float(t)


def noised(objective: Objective, latents: Tensor, t: float, samples: Tensor, epochs: Tensor, seed: int) -> Tensor:
    """Add the objective's noise of time `t` to latents; at the time of clean data they are returned unchanged.

    The noise of a sample depends on (seed, epoch, sample).
    """
    if t == clean_time(objective):
        return latents
    noise = random.normal(samples, epochs, tuple(latents.shape[1:]), seed=seed, stream='latent_noise')
    if objective.integer_times:
        assert isinstance(objective, DDPMObjective)
        return diffuse(latents, objective.alpha_bar[int(t)], noise)
    times = torch.full((len(latents),), t, dtype=torch.float64, device=latents.device)
    assert isinstance(objective, FlowObjective)
    return interpolate(objective.coefficients(times), latents, noise)[0]


@dataclass(frozen=True)
class FrozenModel:
    """Computes features from a batch of a data set.

    Attributes:
        network: Encoder, DiT or SiT.
        preprocessor: Data preprocessor that makes latents; it takes the mode of a posterior.
        objective: Objective of a denoiser; None for an encoder.
        t: Time of a denoiser.
        pool: As in `block_features`.
        seed: Seed of the noise, used if `t` is not the time of clean data.
        weights: Weights of a denoiser, 'ema' or 'model'.
    """

    network: Any
    preprocessor: Any
    objective: Objective | None = None
    t: float | None = None
    pool: str = 'mean'
    seed: int = 0
    weights: str | None = None

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.network.num_layers

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return self.network.pos_embed.device

    def __call__(self, batch: dict[str, Any], layers: Sequence[int], split: int = 0) -> tuple[list[Tensor], Tensor]:
        """Features float32[N, D] of each layer and classes int64[N] for a collated batch.

        `split`, 0 (training) or 1 (validation), gives sample i of each split its own noise, so that a head cannot recognise
        noise that it has seen in training.

        Raises:
            ValueError: A sample has no class.
        """
        data = self.preprocessor(batch, training=False)
        latents, data_samples = data['inputs'], data['data_samples']
        if any('gt_label' not in sample for sample in data_samples):
            raise ValueError('a probe needs labelled data: use a folder of class folders, or a latent cache of one')
        labels = torch.cat([sample.gt_label for sample in data_samples]).to(latents.device)
        latents, t = self.at_time(latents, data_samples, split)
        return block_features(self.network, latents, layers, t, self.pool), labels

    def at_time(self, latents: Tensor, data_samples: Sequence, split: int = 0) -> tuple[Tensor, Any]:
        """Add the noise of time `t` to latents: the result, and the time as the network takes it.

        An encoder gets its latents unchanged, and None. The noise depends on `seed`, `split` and each sample's number.
        """
        if self.objective is None:
            return latents, None
        assert self.t is not None
        keys = sample_keys(data_samples, len(latents), latents.device, training=False)
        noisy = noised(self.objective, latents, self.t, keys.sample, 2 * keys.epoch + split, self.seed)
        return noisy, self.objective.network_times(self.t)


def load_frozen(
    cfg: Config,
    checkpoint: str | Path,
    *,
    weights: str | None = None,
    t: float | None = None,
    pool: str = 'mean',
    seed: int = 0,
    load_vae: bool = True,
    vae_hash: str | None = None,
    device: str | None = None,
) -> FrozenModel:
    """Build the network of a config with a checkpoint's weights, loaded strictly, in eval mode and without gradients.

    Args:
        cfg: Config of pretraining, classification or generation.
        checkpoint: Checkpoint of `usp train`; for an encoder also official weights.
        weights: Weights of a generator, 'ema' (the default) or 'model'.
        t: Time of a generator; None for the time of clean data.
        pool: As in `block_features`.
        seed: Seed of the noise, used if `t` is not the time of clean data.
        load_vae: Whether to load the VAE; False if all data are cached latents.
        vae_hash: Hash of the VAE weights that wrote the latents, if the VAE is not loaded.
        device: Device of the model; by default the GPU if there is one, else the CPU.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The config is of another stage, the checkpoint is of another model or VAE or lacks the requested weights, or
            the model has no use for an argument.
    """
    if cfg.model.type not in _PARTS:
        raise ValueError(f"model.type '{cfg.model.type}' has no blocks to probe: give a config of {', '.join(_PARTS)}")
    model, part = copy.deepcopy(cfg.model), _PARTS[cfg.model.type]
    objective = MODELS.build(model.objective) if part == 'denoiser' else None
    t = check_time(objective, t)
    if objective is None and weights is not None:
        raise ValueError(f"weights='{weights}': an encoder has one set of weights, leave it out")
    weights = 'ema' if objective is not None and weights is None else weights_name(weights)
    trained = read_trained(checkpoint)
    state = _encoder_state(trained) if weights is None else _denoiser_state(trained, weights)
    network = {**model[part], 'init_cfg': None}
    if weights is None:
        network.update(out_type='raw', final_norm='norm.weight' in state)
    preprocessor = preprocessor_config(model.get('data_preprocessor'))
    preprocessor.update(load_vae=load_vae, batch_augments=None)
    built = MODELS.build(share_vae(preprocessor, network, part))
    check_pool(built, pool)
    load_exactly(built, state, checkpoint)
    preprocessor = MODELS.build(preprocessor)
    check_model_vae(trained, preprocessor.codec, cfg, vae_hash)
    device = device or get_device()
    built = built.to(device).eval().requires_grad_(False)
    return FrozenModel(built, preprocessor.to(device), objective, t, pool, seed, weights)


def _encoder_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The encoder's weights, without the norm of pooled tokens, which belongs to a classifier."""
    try:
        state = encoder_weights(checkpoint.weights)
    except ValueError as error:
        raise ValueError(f"'{checkpoint.path}' does not fit the config: {error}") from error
    return {name: tensor for name, tensor in state.items() if not name.startswith('fc_norm.')}


def _denoiser_state(checkpoint: Checkpoint, weights: str) -> dict[str, Tensor]:
    if weights not in PREFIXES:
        raise ValueError(f'weights={weights!r} must be one of {(*PREFIXES,)}')
    found = checkpoint.weights
    if not any(name.startswith(PREFIXES['model']) for name in found):
        raise ValueError(f"'{checkpoint.path}' does not fit the config: no DiT or SiT in it, it has {sorted(found)[:3]}…")
    prefix = PREFIXES[weights]
    state = {name[len(prefix) :]: tensor for name, tensor in found.items() if name.startswith(prefix)}
    if not state:
        raise ValueError(f"'{checkpoint.path}' has no averaged (EMA) weights: use those that were trained, weights='model'")
    return state
