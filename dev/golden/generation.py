"""Golden numbers of DiT, SiT, REPA and LightningDiT: networks, transfer, losses, whole sampling chains."""

from collections.abc import Callable, Mapping
from itertools import product
from math import isqrt
from typing import Any

import numpy as np
import torch
from recipe import Recorder, drawing
from torch import Tensor

T_STEPS, T_FLOW = torch.tensor([0, 421, 999]), torch.tensor([0.05, 0.4, 0.97])
LABELS = torch.tensor([1, 5, 6])
PATHS = ('Linear', 'GVP', 'VP')
SDES = [
    *(('velocity', *names, last) for names in (('Euler', 'sigma'), ('Heun', 'sigma')) for last in ('Mean', 'Euler', 'Tweedie')),
    ('velocity', 'Euler', 'sigma', None),
    ('velocity', 'Euler', 'linear', 'Mean'),
    ('velocity', 'Euler', 'decreasing', 'Mean'),
    ('noise', 'Euler', 'SBDM', 'Mean'),
]


def record(rec: Recorder, pretrained: Mapping[str, Tensor]) -> None:
    """Everything of this file; `pretrained` are the official encoder's weights."""
    with rec.importing('USP/generation/DiT'):
        from models import DiT, DiT_VAE_simple

        dit, plain = rec.fill(DiT_VAE_simple(**shape(rec)), 'usp-dit'), rec.fill(DiT(**shape(rec)), 'dit')
        x = data(rec)
        guided = guidance(rec, dit, x, T_STEPS)
        rec.save(
            'dit_forward',
            **dict(x=x, t=T_STEPS, y=LABELS, out=dit(x, T_STEPS, LABELS)),
            **dict(out_without_affine=plain(x, T_STEPS, LABELS), cfg_scale=4.0, cfg_out=guided),
        )
        strong(rec, 'strong_dit', DiT_VAE_simple, T_STEPS)
        transfer(rec, DiT_VAE_simple, pretrained)
        diffusion(rec, dit)
    with rec.importing('USP/generation/SiT'):
        from models import SiT_VAE_simple

        sit = rec.fill(SiT_VAE_simple(**shape(rec)), 'usp-sit')
        guided = guidance(rec, sit, x, T_FLOW)
        rec.save('sit_forward', x=x, t=T_FLOW, y=LABELS, out=sit(x, T_FLOW, LABELS), cfg_scale=4.0, cfg_out=guided)
        strong(rec, 'strong_sit', SiT_VAE_simple, T_FLOW)
    with rec.importing('SiT'):
        flow_losses(rec, sit)
        flow_samples(rec, sit)
    with rec.importing('REPA'):
        repa(rec)
    with rec.importing('LightningDiT'):
        lightning(rec, sit)


def shape(rec: Recorder, **changes: Any) -> dict[str, Any]:
    width, depth, heads = rec.arch
    latents = dict(input_size=8, patch_size=2, in_channels=4)
    return latents | dict(hidden_size=width, depth=depth, num_heads=heads, num_classes=rec.num_classes) | changes


def data(rec: Recorder) -> Tensor:
    return rec.input('genx', 3, 4, 8, 8)


def guidance(rec: Recorder, model: Any, x: Tensor, t: Tensor) -> Tensor:
    """Guided by 4; the second half of the batch is without class."""
    null = torch.full((3,), rec.num_classes)
    return model.forward_with_cfg(torch.cat([x, x]), torch.cat([t, t]), torch.cat([LABELS, null]), 4.0)


def strong(rec: Recorder, name: str, kind: Callable[..., Any], t: Tensor) -> None:
    """With weights of 0.1, at which the kinds of GELU differ by more than rounding."""
    x, model = rec.input('strong', 3, 4, 8, 8), rec.fill(kind(**shape(rec)), deviation=0.1)
    rec.save(name, x=x, t=t, y=LABELS, out=model(x, t, LABELS))


def transfer(rec: Recorder, kind: Callable[..., Any], pretrained: Mapping[str, Tensor]) -> None:
    """The encoder in a generator on 12×12 latents: all blocks, and the first alone."""
    found = dict(x=rec.input('transferx', 2, 4, 12, 12), t=torch.tensor([3, 700]), y=torch.tensor([0, 2]))
    for tag, kept in (('all', None), ('first1', 1)):
        model = rec.fill(kind(**shape(rec, input_size=12)))
        state = {name.replace('patch_embed.', 'x_embedder.'): value.clone() for name, value in pretrained.items()}
        state['pos_embed'] = resized(state['pos_embed'], isqrt(model.num_patches))
        if kept is not None:
            state = {name: value for name, value in state.items() if block(name) < kept}
        keys = model.load_state_dict(state, strict=False)
        found |= {'pos_embed': model.pos_embed, f'out_{tag}': model.eval()(found['x'], found['t'], found['y'])}
        found[f'missing_{tag}'] = np.array(sorted(keys.missing_keys))
        found[f'unexpected_{tag}'] = np.array(sorted(keys.unexpected_keys))
    rec.save('transfer_mae_to_dit', **found)


def block(name: str) -> int:
    """Number of the encoder block that a name lies in; -1 outside."""
    return int(name.split('.')[1]) if name.startswith('blocks.') else -1


def resized(table: Tensor, side: int) -> Tensor:
    """A position table without its class token, bicubic on a grid of another side."""
    old = isqrt(table.shape[1] - 1)
    grid = table[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode='bicubic', align_corners=False)
    return grid.permute(0, 2, 3, 1).flatten(1, 2)


def diffusion(rec: Recorder, dit: Any) -> None:
    """Losses, and two shortened chains whose noise is kept in the order of the calls."""
    from diffusion import create_diffusion

    process, x, noise = create_diffusion(timestep_respacing=''), data(rec), rec.input('gennoise', 3, 4, 8, 8)
    terms = process.training_losses(dit, x, T_STEPS, dict(y=LABELS), noise=noise)
    rec.save('dit_losses', x=x, t=T_STEPS, y=LABELS, noise=noise, x_t=process.q_sample(x, T_STEPS, noise=noise), **terms)
    for tag, respacing in (('ddpm10', '10'), ('ddim8', 'ddim8')):
        process, z = create_diffusion(timestep_respacing=respacing), rec.input(f'z{tag}', 2, 4, 8, 8)
        y, both, used = torch.tensor([2, 3, rec.num_classes, rec.num_classes]), torch.cat([z, z]), []

        def draw(like: Tensor, tag: str = tag, used: list[Tensor] = used, **_: Any) -> Tensor:
            used.append(rec.input(f'{tag}{len(used)}', *like.shape))
            return used[-1]

        loop = process.ddim_sample_loop if tag.startswith('ddim') else process.p_sample_loop
        given = dict(clip_denoised=False, model_kwargs=dict(y=y, cfg_scale=1.5), progress=False, device='cpu')
        with torch.no_grad(), drawing('randn_like', draw):
            out = loop(dit.forward_with_cfg, both.shape, both, **given)
        steps = np.array(process.timestep_map)
        rec.save(f'dit_sample_{tag}', z=z, y=y[:2], cfg_scale=1.5, noise=stacked(used), sample=out.chunk(2)[0], timesteps=steps)


def stacked(used: list[Tensor]) -> Tensor:
    return torch.stack(used) if used else torch.zeros(0)


def flow_losses(rec: Recorder, sit: Any) -> None:
    from transport import create_transport

    x, noise = data(rec), rec.input('sitnoise', 3, 4, 8, 8)
    found = dict(x=x, x0=noise, t=T_FLOW, y=LABELS)
    for path in PATHS:
        for prediction, weight in product(('velocity', 'noise', 'score'), (None, 'velocity', 'likelihood')):
            if prediction == 'velocity' and weight:
                continue
            process = create_transport(path, prediction, weight, None, None)
            process.sample = lambda x1, **_: (T_FLOW, noise, x1)
            found[f'loss_{path}_{prediction}_{weight}'] = process.training_losses(sit, x, dict(y=LABELS))['loss']
        process = create_transport(path, 'velocity', None, None, None)
        _, found[f'xt_{path}'], found[f'ut_{path}'] = process.path_sampler.plan(T_FLOW, noise, x)
    rec.save('sit_losses', **found)


@torch.no_grad()
def flow_samples(rec: Recorder, sit: Any) -> None:
    """ODE and SDE chains; all SDEs see the same noise."""
    from transport import Sampler, create_transport

    z, y = rec.input('sitz', 2, 4, 8, 8), torch.tensor([0, 4])
    found = dict(z=z, y=y)
    for prediction, (method, steps) in product(('velocity', 'noise'), (('euler', 9), ('heun2', 9), ('dopri5', 5))):
        process = create_transport('Linear', prediction, None, None, None)
        solve = Sampler(process).sample_ode(sampling_method=method, num_steps=steps)
        found[f'ode_{prediction}_{method}_{steps}'] = solve(z, sit.forward, y=y)[-1]
    for prediction, method, form, last in SDES:
        process, used = create_transport('Linear', prediction, None, None, None), []

        def draw(*size: Any, used: list[Tensor] = used, **_: Any) -> Tensor:
            used.append(rec.input(f'sde{len(used)}', *(size if isinstance(size[0], int) else size[0])))
            return used[-1]

        settings = dict(sampling_method=method, diffusion_form=form, last_step=last, last_step_size=0.04, num_steps=10)
        with drawing('randn', draw):
            out = Sampler(process).sample_sde(**settings)(z, sit.forward, y=y)[-1]
        assert torch.isfinite(out).all(), (prediction, method, form, last)
        found |= {f'sde_{prediction}_{method}_{form}_{last}': out, 'sde_noise': torch.stack(used)}
    rec.save('sit_sample', **found)


def repa(rec: Recorder) -> None:
    """REPA's SiT, in which t = 1 is the noise, with a projector after block 1."""
    from loss import SILoss
    from models.sit import SiT

    width = rec.arch[0]
    sizes = dict(decoder_hidden_size=width, encoder_depth=1, z_dims=[24], projector_dim=40)
    options = dict(path_type='linear', class_dropout_prob=0.1, fused_attn=False, qk_norm=False)
    model = rec.fill(SiT(**shape(rec), **sizes, **options), 'repa')
    x, teacher, noise = data(rec), rec.input('dino', 3, 16, 24), rec.input('sitnoise', 3, 4, 8, 8)
    times = drawing('rand', lambda *_, **__: T_FLOW.view(3, 1, 1, 1).clone())
    with times, drawing('randn_like', lambda *_, **__: noise.clone()):
        denoising, projection = SILoss()(model, x, dict(y=LABELS), zs=[teacher])
    out, projected = model(x, T_FLOW, LABELS)
    rec.save(
        'repa',
        **dict(x=x, t=T_FLOW, y=LABELS, noise=noise, teacher=teacher, projected=projected[0], out=out),
        **dict(denoising_loss=denoising, projection_loss=projection),
    )


def lightning(rec: Recorder, sit: Any) -> None:
    """LightningDiT's loss, velocity and cosine, of SiT."""
    from transport import create_transport

    x, noise = data(rec), rec.input('sitnoise', 3, 4, 8, 8)
    process = create_transport('Linear', 'velocity', None, None, None, use_cosine_loss=True, use_lognorm=True)
    process.sample = lambda x1, *_, **__: (T_FLOW, noise, x1)
    terms = process.training_losses(sit, x, dict(y=LABELS))
    rec.save('lightning_losses', x=x, x0=noise, t=T_FLOW, y=LABELS, loss=terms['loss'], cos_loss=terms['cos_loss'])
