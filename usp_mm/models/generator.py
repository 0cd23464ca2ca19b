"""Train and sample a latent generator: DiT or SiT, with its averaged copy (USP, section 2.3 and Table 14).

Shape legend: N samples, C×h×w latent, H×W image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from usp_mm.config.options import WEIGHTS
from usp_mm.datasets import random_labels
from usp_mm.datasets.mmagic_samples import latents_to_mmagic, to_mmagic
from usp_mm.functional import precision, random
from usp_mm.functional.attention import fast_attention
from usp_mm.functional.masking import gather_tokens
from usp_mm.presets import lookup
from usp_mm.registry import MODELS
from usp_mm.renaming.arguments import recorded_weights, weights_name

from .compiling import Compiling, compile_arguments, compile_denoiser_as
from .data_preprocessor import preprocessor_config
from .dit import DiT
from .ema import WeightAverage
from .geometry import share_vae
from .guidance import Guidance
from .random_keys import SampleKeys, labels_of, sample_keys, to_device
from .repa import REPA
from .sampling_weights import bfloat16_weights

SAMPLE_DTYPES = ('float32', 'bfloat16')
STEPS_AT_ONCE = 8  # number of steps whose noise is drawn together
_GIVEN: Any = None  # placeholder for arguments that the generator itself passes
EMA = dict(momentum=1e-4)  # a decay of 0.9999 (Table 14)


@MODELS.register_module()
class LatentDiffusionGenerator(BaseModel):
    """A latent generator: a denoiser, its training objective and its sampler.

    The VAE is named once, in `data_preprocessor.vae`. Training noise, times and dropped classes depend only on (seed, epoch,
    sample), and the i-th generated sample only on (seed, i, label); batch size, number of processes and step do not matter.

    Args:
        denoiser: Config of DiT or SiT.
        objective: Config of DDPMObjective or FlowObjective.
        sampler: Config of a sampler that supports the objective.
        data_preprocessor: Config of LatentDataPreprocessor.
        guidance: Arguments of `Guidance`; None samples without guidance.
        ema: dict(momentum=1 - decay) of the averaged weights that GeneratorEMAHook updates; None keeps no average.
        sample_model: Weights to sample with, 'ema' or 'model' (formerly 'orig').
        sample_dtype: 'float32', or 'bfloat16' to sample under autocast with weights that are cast once per call.
        tf32: Whether float32 may round to TF32 on a GPU, in sampling and (through TF32Hook) in training, as official code may.
        decode_batch_size: Images per call of the VAE in sampling. By default 16 on a GPU and 1 on a CPU, where an image's
            pixels then do not depend on the other images.
        repa: Arguments of `REPA` except those that describe the denoiser. Training then aligns the denoiser's tokens with
            those of a frozen encoder. None trains without REPA.
        compile: False, 'blocks', 'loss', or a dict of arguments of torch.compile with `region`, see `Compiling`. It applies
            to the denoiser and to its average.
        compile_denoiser: Older name of `compile`; True means 'blocks'.
        cuda_graph: Whether to sample batches of up to 8 on a GPU with CUDA graphs of the network. Adaptive ODE methods ignore
            it. The code has not run on a GPU yet.
        init_cfg: MMEngine's `init_cfg`.

    Raises:
        ValueError: Parts do not fit each other.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit, without what this class passes itself.
    ARGUMENTS_OF = {
        'guidance': Guidance,
        'ema': partial(WeightAverage, _GIVEN),
        'repa': partial(REPA, _GIVEN, _GIVEN, _GIVEN),
        'compile': compile_arguments,
        'compile_denoiser': compile_arguments,
    }

    def __init__(
        self,
        denoiser: dict,
        objective: dict,
        sampler: dict,
        data_preprocessor: dict | None = None,
        guidance: dict | None = None,
        ema: dict | None = EMA,
        sample_model: str = 'ema',
        sample_dtype: str = 'float32',
        tf32: bool = True,
        decode_batch_size: int | None = None,
        repa: dict | None = None,
        compile: str | bool | dict = False,
        compile_denoiser: bool | dict = False,
        cuda_graph: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        data_preprocessor = preprocessor_config(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self.denoiser = MODELS.build(share_vae(data_preprocessor, denoiser, 'denoiser'))
        self.objective, self.sampler = MODELS.build(objective), MODELS.build(sampler)
        self.guidance = Guidance(**(guidance or {}))
        self.denoiser_ema = None if ema is None else WeightAverage(self.denoiser, **ema)
        self.repa = None if repa is None else self._build_repa(repa)
        self.data_preprocessor.pass_on(keys=True, labels=True, images=repa is not None)
        if decode_batch_size is not None and decode_batch_size < 1:
            raise ValueError(f'decode_batch_size={decode_batch_size} must be at least 1')
        self.decode_batch_size, self.sample_dtype, self.tf32 = decode_batch_size, sample_dtype, tf32
        self.cuda_graph = cuda_graph
        lookup(dict.fromkeys(SAMPLE_DTYPES), sample_dtype, 'sample_dtype')
        self._check_parts()
        self.sample_model = self.check_sample_model(sample_model)
        self._sync_ema()
        self.compiling = Compiling(compile_denoiser_as(compile_denoiser, compile))
        average = [] if self.denoiser_ema is None else self.denoiser_ema.module.blocks
        self.compiling.compile_blocks(self.denoiser.blocks, average)

    def _build_repa(self, repa: dict) -> REPA:
        denoiser = self.denoiser
        built = REPA(denoiser.geometry, denoiser.embed_dims, denoiser.num_layers, **repa)
        built.check_route(getattr(denoiser, 'route', None))
        return built

    def _check_parts(self) -> None:
        wanted, found = self.objective.out_channels(self.denoiser.geometry.channels), self.denoiser.out_channels
        if wanted != found:
            kinds = (
                f'{type(self.objective).__name__} needs {wanted} output channels, {type(self.denoiser).__name__} has {found}'
            )
            raise ValueError(f'{kinds}: use DiT with learn_sigma as the objective says, and SiT with FlowObjective')
        self.sampler.check(self.objective)
        if self.guidance.active and not self.denoiser.class_dropout:
            raise ValueError(f'guidance scale={self.guidance.scale} needs a "no class" label, but denoiser.class_dropout is 0')

    def check_sample_model(self, sample_model: str | None) -> str:
        """'ema' or 'model', by default the generator's own choice; ValueError for another name or without an average."""
        name = weights_name(sample_model or self.sample_model)
        if name not in WEIGHTS:
            raise ValueError(f'sample_model={name!r} must be one of {WEIGHTS}')
        if name == 'ema' and self.denoiser_ema is None:
            raise ValueError("sample_model='ema', but the generator was built with ema=None: use sample_model='model'")
        return name

    def init_weights(self) -> None:
        """Initialise the denoiser, from pretrained weights if its `init_cfg` says so, then start the average from it."""
        super().init_weights()
        self._sync_ema()

    @torch.no_grad()
    def _sync_ema(self) -> None:
        if self.denoiser_ema is not None:
            self.denoiser_ema.module.load_state_dict(self.denoiser.state_dict())

    def update_ema(self) -> None:
        """Move the average towards the current weights. Call it once after each optimizer step."""
        if self.denoiser_ema is not None:
            self.denoiser_ema.update_parameters(self.denoiser)

    # ------------------------------------------------------------------ mmengine's modes

    def forward(self, inputs: Any, data_samples: list | None = None, mode: str = 'tensor', **kwargs: Any) -> Any:
        """Run one of MMEngine's modes.

        Args:
            inputs: For 'loss', scaled latents [N, C, h, w]. For 'predict', dict(index=int64[N], label=int64[N]) with optional
                `seed` and `sample_model`, or mmagic's dict(num_batches=N) with optional `labels`; or scaled latents, which are
                returned as they are, for `DenoisingLoss`. For 'tensor', noisy latents.
            data_samples: Data samples with `gt_label`, for 'loss' and for latents in 'predict', which need `sample_idx` too.
            kwargs: Further arguments of `loss`, or for 'tensor' of the network (`t` and `y`).
            mode: 'loss' returns a dict of losses; 'predict' a list of mmagic's DataSample, whose `fake_img` is float[3, H, W],
                BGR in [0, 255], or `latent` float[C, h, w]; 'tensor' what the network returns.
        """
        if mode == 'loss':
            return self.loss(inputs, data_samples, **kwargs)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.denoiser(inputs, **kwargs)
        raise ValueError(f"mode='{mode}' must be 'loss', 'predict' or 'tensor'")

    def loss(
        self,
        inputs: Tensor,
        data_samples: list | None,
        images: Tensor | None = None,
        teacher_tokens: Tensor | None = None,
        keys: SampleKeys | None = None,
        labels: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Latents [N, C, h, w] with labels -> batch means of the loss and of its parts (with `repa` also 'repa').

        Args:
            images, teacher_tokens: Inputs of `REPA.targets`, used only with `repa`.
            keys, labels: Keys and classes of the data samples; by default computed from them.
        """
        if keys is None:
            keys = sample_keys(data_samples, len(inputs), inputs.device, self.training)
        if labels is None and (labels := labels_of(data_samples, inputs.device)) is None:
            raise ValueError('a generator trains on labelled data: use a folder of class folders, or a latent cache of one')
        targets = None if self.repa is None else self.repa.targets(images, teacher_tokens)
        return self.compiling.loss(LatentDiffusionGenerator._losses)(self, inputs, keys, labels, targets)

    def _losses(self, inputs: Tensor, keys: SampleKeys, labels: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        t = self.objective.draw_times(keys.uniform(1, 'timestep')[:, 0])
        noise = keys.normal(tuple(inputs.shape[1:]), 'noise')
        dropped = keys.uniform(1, 'label_dropout')[:, 0] < self.denoiser.class_dropout
        label = labels.masked_fill(dropped, self.denoiser.null_label)
        route = getattr(self.denoiser, 'route', None) if self.training else None
        keep = None if route is None else route.draw(keys)
        if self.repa is None or targets is None:
            routed = {} if keep is None else dict(keep=keep)
            parts = self.objective.losses(lambda x_t, t: self.denoiser(x_t, t, label, **routed).float(), inputs, t, noise)
        else:
            parts = self._aligned_losses(self.repa, inputs, t, label, noise, targets, keep)
        return {name: value.mean() for name, value in parts.items()}

    def _aligned_losses(
        self, repa: REPA, x: Tensor, t: Tensor, label: Tensor, noise: Tensor, targets: Tensor, keep: Tensor | None = None
    ) -> dict[str, Tensor]:
        def denoise(x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            routed = {} if keep is None else dict(keep=keep)
            out, hidden = self.denoiser(x_t, t, label, return_hidden=[repa.depth], **routed)
            return out.float(), hidden[repa.depth]

        parts, tokens = self.objective.losses_and_more(denoise, x, t, noise)
        if keep is not None and self.denoiser.route.inside(repa.depth):  # other tokens are not there
            targets = gather_tokens(targets, keep)
        alignment = repa(tokens, targets)
        return {**parts, 'loss': parts['loss'] + repa.weight * alignment, 'repa': alignment.detach()}

    def predict(self, inputs: dict | Tensor, data_samples: Sequence | None = None) -> list:
        """Generate the requested samples and return them as mmagic's data samples; latents are only converted to these."""
        if isinstance(inputs, Tensor):
            return latents_to_mmagic(inputs, data_samples or ())
        index, label, seed = self._request(inputs)
        images = self.sample(index, label, seed=seed, sample_model=recorded_weights(inputs.get('sample_model')))
        return to_mmagic(images, index, label)

    def _request(self, inputs: dict) -> tuple[Tensor, Tensor, int]:
        device = self.denoiser.pos_embed.device
        seed = int(torch.as_tensor(inputs.get('seed', 0)).flatten()[0])
        labels = inputs.get('label', inputs.get('labels'))
        if 'index' in inputs:
            index = torch.as_tensor(inputs['index'], device=device)
        else:
            index = torch.arange(len(labels) if labels is not None else inputs['num_batches'], device=device)
        if labels is None:
            labels = random_labels(index, self.denoiser.num_classes, seed)
        return index, torch.as_tensor(labels, device=device), seed

    # ------------------------------------------------------------------ sampling

    def network(self, sample_model: str | None = None) -> DiT:
        """The network that samples: the denoiser or its average."""
        if self.check_sample_model(sample_model) == 'model':
            return self.denoiser
        assert self.denoiser_ema is not None
        return self.denoiser_ema.module

    @torch.no_grad()
    def sample_latents(
        self,
        index: Tensor | Sequence[int],
        label: Tensor | Sequence[int],
        *,
        seed: int = 0,
        sample_model: str | None = None,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """Generate scaled latents.

        Args:
            index: Numbers of the samples, int64[N]. The noise of a sample depends on its number and on `seed`.
            label: Classes, int64[N].
            seed: Seed of the noise of all samples.
            sample_model: Weights to sample with, 'ema' or 'model'; None uses the generator's own choice.
            on_step: Callback that is called with (step, state [N, C, h, w]) after each step.

        Returns:
            Latents, float32[N, C, h, w].

        Raises:
            ValueError: A label is not a class (`null_label` is allowed), or 'ema' is asked for and there is no average.
        """
        network = self.network(sample_model)
        device = network.pos_embed.device
        label = self._check_labels(torch.as_tensor(label))  # before the copy: looking at it later would wait for the device
        index, label = to_device(torch.as_tensor(index), device), to_device(label, device)
        geometry = network.geometry
        shape = (geometry.channels, geometry.latent_size, geometry.latent_size)

        start = random.normal(index, torch.zeros_like(index), shape, seed=seed, stream='start_noise')
        denoise = self.guidance.denoise(network, label, self.objective, self.cuda_graph)
        noise = _StepNoise(index, shape, seed)
        with self.arithmetic(device), self.sampling_weights(sample_model):
            return self.sampler.sample(denoise, start, self.objective, noise, on_step)

    @contextmanager
    def sampling_weights(self, sample_model: str | None = None) -> Iterator[None]:
        """Put the sampling network into evaluation mode and, with `sample_dtype` 'bfloat16', cast its weights.

        `sample_latents` does this itself. Around several calls of it, this context casts the weights only once. Don't train
        or save the model within the context.
        """
        network = self.network(sample_model)
        was_training = network.training
        network.eval()
        try:
            with bfloat16_weights(network) if self.sample_dtype == 'bfloat16' else nullcontext():
                yield
        finally:
            network.train(was_training)

    @contextmanager
    def arithmetic(self, device: torch.device) -> Iterator[None]:
        """Context that applies `sample_dtype` and, on a GPU, `tf32`."""
        with ExitStack() as block:
            if device.type == 'cuda':
                block.enter_context(precision.tf32(self.tf32))
            if self.sample_dtype == 'bfloat16':
                block.enter_context(torch.autocast(device.type, torch.bfloat16))
                block.enter_context(fast_attention(device))
            yield

    def sample(self, index: Tensor | Sequence[int], label: Tensor | Sequence[int], **kwargs: Any) -> Tensor:
        """Generate images uint8[N, 3, H, W], RGB. The arguments are those of `sample_latents`.

        Raises:
            ValueError: See `sample_latents`; or a latent is not finite.
        """
        latents = self.sample_latents(index, label, **kwargs)
        check_samples(latents, index, label)
        return self.decode(latents)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [N, C, h, w] -> uint8[N, 3, H, W], RGB: clamp(127.5·x + 128, 0, 255), as official DiT rounds."""
        codec = self.data_preprocessor.codec.to(latents.device)
        size = self.decode_batch_size or (1 if latents.device.type == 'cpu' else 16)
        images = torch.cat([codec.decode(chunk) for chunk in latents.split(size)])
        return (127.5 * images + 128).clamp(0, 255).to(torch.uint8)

    def _check_labels(self, label: Tensor) -> Tensor:
        last = self.denoiser.null_label if self.denoiser.class_dropout else self.denoiser.num_classes - 1
        wrong = label[(label < 0) | (label > last)]
        if len(wrong):
            raise ValueError(f'label {int(wrong[0])} is no class: the generator has {self.denoiser.num_classes}, from 0')
        return label

    def describe(self, sample_model: str | None = None) -> dict[str, Any]:
        """Objective, sampler, guidance and weights, for reports."""
        return dict(
            objective=self.objective.describe(),
            sampler=self.sampler.describe(),
            guidance=self.guidance.describe(),
            sample_model=self.check_sample_model(sample_model),
            sample_dtype=self.sample_dtype,
            tf32=self.tf32,
            **({'compile': self.compiling.region} if self.compiling.region else {}),
        )


def check_samples(latents: Tensor, index: Tensor | Sequence[int], label: Tensor | Sequence[int]) -> None:
    """Raise a ValueError that names the first sample whose latent [C, h, w] is not finite, if there is one."""
    check_finite_samples(finite_samples(latents), index, label)


def finite_samples(latents: Tensor) -> Tensor:
    """Whether the latent of each sample is finite: [N, C, h, w] -> bool[N], on the device of the latents."""
    return latents.flatten(1).isfinite().all(1)


def check_finite_samples(finite: Tensor, index: Tensor | Sequence[int], label: Tensor | Sequence[int]) -> None:
    """Like `check_samples`, for the result of `finite_samples`."""
    broken = (~finite).nonzero().flatten()
    if len(broken):
        first = int(broken[0])
        raise ValueError(
            f'sample {int(index[first])} (class {int(label[first])}) became NaN or infinite: '
            'check that the training did not diverge, and take more steps or less guidance'
        )


class _StepNoise:
    """Maps k to the noise of the k-th stochastic step, [N, *shape]. Noise for several steps is drawn together for speed."""

    def __init__(self, index: Tensor, shape: tuple[int, ...], seed: int) -> None:
        self.index, self.shape, self.seed = index, shape, seed
        self.first, self.drawn = 0, ()

    def __call__(self, step: int) -> Tensor:
        if not self.first <= step < self.first + len(self.drawn):
            steps = torch.arange(step, step + STEPS_AT_ONCE, device=self.index.device)
            samples, epochs = self.index.repeat(STEPS_AT_ONCE), steps.repeat_interleave(len(self.index))
            drawn = random.normal(samples, epochs, self.shape, seed=self.seed, stream='step_noise')
            self.first, self.drawn = step, drawn.split(len(self.index))
        return self.drawn[step - self.first]
