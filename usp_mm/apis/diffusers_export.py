"""Write a generator as a pipeline of diffusers: DiT as diffusers' own, SiT with the classes that diffusers lacks."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mmengine.logging import MMLogger

from usp_mm.checkpoints import convert
from usp_mm.checkpoints.diffusers_sit import write_sit_pipeline
from usp_mm.models import LatentDiffusionGenerator
from usp_mm.models.dit import DiT
from usp_mm.models.objectives import DDPMObjective, FlowObjective
from usp_mm.models.samplers import ODESampler
from usp_mm.vaes.sd import DiffusersCodec

from .model_folder import check_absent

#: Method and points of the time grid for a config whose sampler is not one of the pipeline's.
DEFAULT_METHOD, DEFAULT_POINTS = 'heun2', 50
#: The schedule of diffusers' DiT.
_DIT_SCHEDULE = dict(num_steps=1000, beta_start=1e-4, beta_end=0.02)


def write_pipeline(
    out: Path, model: LatentDiffusionGenerator, classes: Sequence[str] | None = None, include_vae: bool = True
) -> None:
    """Write the folder of a diffusers pipeline, with the weights that the generator samples with.

    A DiT becomes a `DiTPipeline`. A SiT becomes a `SiTPipeline`, whose code is in the folder: it needs neither this package
    nor OpenMMLab's, and `DiffusionPipeline.from_pretrained(out, custom_pipeline=out, trust_remote_code=True)` loads it.

    Args:
        out: A folder that does not exist or is empty.
        model: The generator.
        classes: Names of the classes.
        include_vae: Whether the folder has a copy of the VAE.

    Raises:
        FileExistsError: `out` is not empty.
        ValueError: A setting of the generator has no place in the pipeline, or the VAE is not one of diffusers'.
    """
    check_absent(out)
    vae = _vae(model) if include_vae else None
    if isinstance(model.objective, DDPMObjective):
        _write_dit(out, model, classes, vae)
    else:
        assert isinstance(model.objective, FlowObjective)
        network = model.network()
        settings = _settings(model, model.objective, classes)
        write_sit_pipeline(out, network.state_dict(), _arguments(network), settings, vae)
    MMLogger.get_current_instance().info(f"'{out}': {', '.join(sorted(path.name for path in out.iterdir()))}")


def _vae(model: LatentDiffusionGenerator) -> Any:
    codec = model.data_preprocessor.codec
    if not isinstance(codec, DiffusersCodec):
        raise ValueError(f"the VAE '{codec.name}' is not one of diffusers': leave it out (include_vae=False)")
    if codec.network is None:
        raise ValueError(
            f"the VAE '{codec.name}' was not loaded: load the generator with it, or leave it out (include_vae=False)"
        )
    return codec.network


def _write_dit(out: Path, model: LatentDiffusionGenerator, classes: Sequence[str] | None, vae: Any) -> None:
    found = {key: getattr(model.objective, key) for key in _DIT_SCHEDULE}
    if found != _DIT_SCHEDULE or not model.objective.learn_sigma:
        raise ValueError(
            f"diffusers' DiT has the schedule {_DIT_SCHEDULE} and learn_sigma=True, not {model.objective.describe()}"
        )
    network = model.network()
    with TemporaryDirectory() as folder:
        file = Path(folder, 'generator.pth')
        weights = {f'denoiser.{name}': value.cpu() for name, value in network.state_dict().items()}
        meta = dict(dataset_meta=dict(classes=tuple(classes))) if classes else {}
        torch.save(dict(state_dict=weights, meta=meta), file)
        if vae is not None:
            vae.save_pretrained(Path(folder, 'vae'))
        arguments: dict[str, Any] = dict(num_heads=network.arch['num_heads'], vae=None if vae is None else Path(folder, 'vae'))
        if network.class_dropout:
            arguments['num_classes'] = network.num_classes
        convert(file, out, 'diffusers', **arguments)


def _arguments(network: DiT) -> dict[str, Any]:
    """Arguments of `SiTTransformer2DModel`."""
    geometry, options, state = network.geometry, network.options, network.state_dict()
    return dict(
        sample_size=geometry.latent_size,
        patch_size=geometry.patch_size,
        in_channels=geometry.channels,
        out_channels=state['final_layer.linear.weight'].shape[0] // geometry.patch_size**2,
        hidden_size=network.embed_dims,
        num_layers=network.num_layers,
        num_attention_heads=network.arch['num_heads'],
        num_embeddings=state['y_embedder.embedding_table.weight'].shape[0],
        norm=options.norm,
        norm_affine='blocks.0.norm1.weight' in state,
        mlp='swiglu' if options.mlp == 'swiglu' else network.act,
        rope=options.rope,
        qk_norm=options.qk_norm,
    )


def _settings(model: LatentDiffusionGenerator, objective: FlowObjective, classes: Sequence[str] | None) -> dict[str, Any]:
    """Arguments of `SiTPipeline` except its modules."""
    if objective.prediction != 'velocity':
        raise ValueError(f"prediction='{objective.prediction}': the pipeline of a SiT integrates a velocity")
    sampler, guidance = model.sampler, model.guidance
    own = isinstance(sampler, ODESampler) and sampler.fixed_steps
    if not own:
        MMLogger.get_current_instance().info(
            f"the pipeline integrates the ODE by '{DEFAULT_METHOD}' at {DEFAULT_POINTS} points: "
            f'it has nothing for the sampler of the config, {sampler.describe()}'
        )
    return dict(
        id2label=None if classes is None else {str(i): str(name) for i, name in enumerate(classes)},
        method=sampler.method if isinstance(sampler, ODESampler) and own else DEFAULT_METHOD,
        num_inference_steps=sampler.num_steps if isinstance(sampler, ODESampler) and own else DEFAULT_POINTS,
        timestep_shift=float(sampler.timestep_shift) if isinstance(sampler, ODESampler) and own else 1.0,
        time_convention=objective.time_convention,
        guidance_scale=guidance.scale,
        guidance_channels=guidance.channels,
        guidance_interval=None if guidance.interval is None else [float(time) for time in guidance.interval],
        has_null_label=bool(model.denoiser.class_dropout),
    )
