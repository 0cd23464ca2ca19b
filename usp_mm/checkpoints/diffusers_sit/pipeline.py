"""Draw pictures of classes with SiT, by integrating its velocity from noise to data.

This file belongs to a pipeline folder and needs torch and diffusers alone:

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
    pipe([207, 360], guidance_scale=4.0, num_inference_steps=50).images
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

#: Explicit Runge-Kutta methods under torchdiffeq's names: nodes, stages and weights of the Butcher tableau.
METHODS: dict[str, tuple[tuple, tuple, tuple]] = {
    'euler': ((0,), ((),), (1,)),
    'midpoint': ((0, 1 / 2), ((), (1 / 2,)), (0, 1)),
    'heun2': ((0, 1), ((), (1,)), (1 / 2, 1 / 2)),
    'heun3': ((0, 1 / 3, 2 / 3), ((), (1 / 3,), (0, 2 / 3)), (1 / 4, 0, 3 / 4)),
    'rk4': ((0, 1 / 3, 2 / 3, 1), ((), (1 / 3,), (-1 / 3, 1), (1, -1, 1)), (1 / 8, 3 / 8, 3 / 8, 1 / 8)),
}
OUTPUT_TYPES = ('pil', 'np', 'pt', 'latent')


class SiTPipeline(DiffusionPipeline):
    """A class-conditional SiT with its VAE.

    Args:
        transformer: A SiTTransformer2DModel.
        vae: A VAE of diffusers; without one, latents are returned.
        id2label: Number of a class -> its name.
        method: The ODE method, a key of `METHODS`.
        num_inference_steps: Default number of points of the time grid, as in SiT's code; there is one step less.
        timestep_shift: Below 1, steps near noise are smaller; 1 keeps the grid even.
        time_convention: 'data_at_1' (SiT), or 'noise_at_1' (REPA), where the network's time and velocity are reversed.
        guidance_scale: Default scale of classifier-free guidance, 1 for none.
        guidance_channels: Number of leading channels that are guided; None for all.
        guidance_interval: Times between which guidance applies; None for all.
        has_null_label: Whether the last row of the label embedding means "no class".
        trust_remote_code: Not used: diffusers hands its own argument of `from_pretrained` on, and warns if it is not taken.
    """

    # for type checkers, which diffusers shows a stand-in
    config: Any
    transformer: Any
    vae: Any
    progress_bar: Any
    numpy_to_pil: Any
    register_modules: Any
    register_to_config: Any
    _execution_device: Any

    _optional_components = ['vae']
    model_cpu_offload_seq = 'transformer->vae'

    def __init__(
        self,
        transformer: Any,
        vae: Any = None,
        id2label: dict[str, str] | None = None,
        method: str = 'heun2',
        num_inference_steps: int = 50,
        timestep_shift: float = 1.0,
        time_convention: str = 'data_at_1',
        guidance_scale: float = 1.0,
        guidance_channels: int | None = 3,
        guidance_interval: list[float] | None = None,
        has_null_label: bool = True,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, vae=vae)
        self.register_to_config(
            id2label=id2label, method=method, num_inference_steps=num_inference_steps, timestep_shift=timestep_shift,
            time_convention=time_convention, guidance_scale=guidance_scale, guidance_channels=guidance_channels,
            guidance_interval=guidance_interval, has_null_label=has_null_label,
        )  # fmt: skip

    def get_label_ids(self, label: str | Sequence[str]) -> list[int]:
        """The numbers of classes by their names, as in diffusers' DiTPipeline.

        Raises:
            ValueError: A name is not one of `id2label`.
        """
        return self._labels([label] if isinstance(label, str) else list(label)).tolist()

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str],
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        method: str | None = None,
        output_type: str = 'pil',
        return_dict: bool = True,
    ) -> Any:
        """Draw one picture for each class.

        Args:
            class_labels: Numbers or names.
            guidance_scale, num_inference_steps, method: In place of the pipeline's own.
            generator: Source of the noise.
            latents: Noise to start from, [N, C, h, w].
            output_type: 'pil', 'np' or 'pt' (in [0, 1]), or 'latent'.
            return_dict: Whether to return an `ImagePipelineOutput` instead of a tuple.

        Raises:
            ValueError: An argument is out of range, or there is no class.
        """
        labels = self._labels([class_labels] if isinstance(class_labels, int | str) else list(class_labels))
        steps = num_inference_steps or self.config.num_inference_steps
        method, scale = method or self.config.method, self.config.guidance_scale if guidance_scale is None else guidance_scale
        self._check(steps, method, scale, output_type)
        shape = (len(labels), self.transformer.config.in_channels, *[self.transformer.config.sample_size] * 2)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        elif tuple(latents.shape) != shape:
            raise ValueError(f'latents are {tuple(latents.shape)}, expected {shape}')
        velocity = self._velocity(labels.to(self._execution_device), scale)
        x = self._integrate(velocity, latents.to(self._execution_device, torch.float32), steps, method)
        images = x if output_type == 'latent' else self._pictures(x, output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _labels(self, wanted: list[int | str]) -> Tensor:
        numbers = {name: int(number) for number, name in (self.config.id2label or {}).items()}
        num_classes = self.transformer.config.num_embeddings - self.config.has_null_label
        if not wanted:
            raise ValueError('there is no class in the list: give at least one number or name')
        for one in wanted:
            if one not in numbers if isinstance(one, str) else not 0 <= one < num_classes:
                raise ValueError(f'class {one!r} is not one of the {num_classes} classes')
        return torch.tensor([numbers[one] if isinstance(one, str) else one for one in wanted])

    def _check(self, steps: int, method: str, scale: float, output_type: str) -> None:
        if steps < 2:
            raise ValueError(f'num_inference_steps={steps} must be at least 2')
        if method not in METHODS:
            raise ValueError(f'method={method!r} must be one of {sorted(METHODS)}')
        if scale != 1 and not self.config.has_null_label:
            raise ValueError(f'guidance_scale={scale}: the network was trained without a "no class" label, leave it out')
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f'output_type={output_type!r} must be one of {OUTPUT_TYPES}')
        if output_type != 'latent' and self.vae is None:
            raise ValueError("the pipeline has no VAE: pass output_type='latent', or vae=… to from_pretrained")

    def _velocity(self, labels: Tensor, scale: float) -> Callable[[Tensor, float], Tensor]:
        config, network = self.config, self.transformer
        reverse = config.time_convention == 'noise_at_1'
        null = torch.full_like(labels, network.config.num_embeddings - 1)
        guided_channels = config.guidance_channels or network.config.in_channels

        def call(x: Tensor, time: float, y: Tensor) -> Tensor:
            t = torch.full((len(x),), 1 - time if reverse else time, dtype=torch.float32, device=x.device)
            out = network(x.to(network.dtype), t, y).float()
            return -out if reverse else out

        def velocity(x: Tensor, time: float) -> Tensor:
            low, high = config.guidance_interval or (0.0, 1.0)
            if scale == 1 or not low <= time <= high:
                return call(x, time, labels)
            cond, uncond = call(torch.cat([x, x]), time, torch.cat([labels, null])).chunk(2)
            mixed = uncond + scale * (cond - uncond)
            return torch.cat([mixed[:, :guided_channels], cond[:, guided_channels:]], dim=1)

        return velocity

    def _integrate(self, velocity: Callable[[Tensor, float], Tensor], x: Tensor, num: int, method: str) -> Tensor:
        even, shift = torch.linspace(0, 1, num, dtype=torch.float64), self.config.timestep_shift
        grid = (shift * even / (1 + (shift - 1) * even)).float()
        nodes, stages, weights = METHODS[method]
        for n in self.progress_bar(range(num - 1)):
            start, end, dt = grid[n], grid[n + 1], float(grid[n + 1] - grid[n])
            slopes: list[Tensor] = []
            for node, stage in zip(nodes, stages, strict=True):
                time = float(end if node == 1 else start + node * (end - start))
                state = x + sum(dt * weight * slope for weight, slope in zip(stage, slopes, strict=True)) if slopes else x
                slopes.append(velocity(state, time))
            x = x + sum(dt * weight * slope for weight, slope in zip(weights, slopes, strict=True))
        return x

    def _pictures(self, latents: Tensor, output_type: str) -> Any:
        config, dtype = self.vae.config, next(self.vae.parameters()).dtype
        latents = latents / (config.get('scaling_factor') or 1.0) + (config.get('shift_factor') or 0.0)
        images = self.vae.decode(latents.to(dtype)).sample.float()
        if output_type != 'pil':
            images = (images / 2 + 0.5).clamp(0, 1)
            return images if output_type == 'pt' else images.permute(0, 2, 3, 1).cpu().numpy()
        pixels = (127.5 * images + 128).clamp(0, 255).to(torch.uint8)  # as the official code rounds
        return self.numpy_to_pil(pixels.permute(0, 2, 3, 1).cpu().numpy() / 255)
