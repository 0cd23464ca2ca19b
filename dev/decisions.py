"""Single decisions that the official numbers hang on, each with a way to get it wrong and tests that must notice."""

from typing import NamedTuple

DIT, GENERATOR, PRETRAIN = (f'tests/test_models/test_golden_{name}.py' for name in ('dit', 'generator', 'pretrain'))
CLASSIFY, TRANSFER = 'tests/test_models/test_golden_classify.py', 'tests/test_models/test_transfer_golden.py'
RUNNER, KL = 'tests/test_engine/test_golden_runner.py', 'tests/test_vaes/test_kl.py'
FLOW, DDPM = 'tests/test_functional/test_flow.py', 'tests/test_functional/test_ddpm.py'
PATCHES, METRICS = 'tests/test_functional/test_patchify_masking.py', 'tests/test_functional/test_metrics.py'
SETTINGS, PREPROCESSOR = 'tests/test_paper_settings.py', 'tests/test_models/test_data_preprocessor.py'


class Mutation(NamedTuple):
    """`old`, which stands once in `file`, becomes `new`; one of `tests`, files, must fail then."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def _of(folder: str, *rows: tuple[str, str, str, str, tuple[str, ...] | str]) -> list[Mutation]:
    return [Mutation(name, f'{folder}/{file}', old, new, (tests,) if isinstance(tests, str) else tests)
            for name, file, old, new, tests in rows]  # fmt: skip


# fmt: off
_LAYERS = _of(
    'usp_mm/layers',
    ('GELU of the encoder: exact', 'block.py',
     'act_layer: type[nn.Module] | partial = nn.GELU,', "act_layer: type[nn.Module] | partial = partial(nn.GELU, approximate='tanh'),", PRETRAIN),
    ('eps of LayerNorm: 1e-6', 'norm.py',
     '"""LayerNorm of the whole model family (Table 1: eps 1e-6)."""\n\n    def __init__(self, dim: int, elementwise_affine: bool = True, **kwargs: Any) -> None:\n        super().__init__(dim, 1e-6,',
     '"""LayerNorm of the whole model family (Table 1: eps 1e-6)."""\n\n    def __init__(self, dim: int, elementwise_affine: bool = True, **kwargs: Any) -> None:\n        super().__init__(dim, 1e-5,',
     PRETRAIN),
    ('bias of queries, keys and values', 'block.py', 'num_prefix_tokens=num_prefix_tokens, qk_norm', 'num_prefix_tokens=num_prefix_tokens, qkv_bias=False, qk_norm', DIT),
    ('adaLN-Zero: modulation starts at zero', 'modulation.py',
     'linear = self.adaLN_modulation[1]\n        assert isinstance(linear, nn.Linear)\n        nn.init.zeros_(linear.weight)', 'linear = self.adaLN_modulation[1]\n        assert isinstance(linear, nn.Linear)\n        nn.init.normal_(linear.weight, std=0.02)', 'tests/test_models/test_dit.py'),
    ('gates, not shifts, are biased (appendix A)', 'modulation.py', '[[2, 5]] = self.gate_bias', '[[0, 3]] = self.gate_bias', 'tests/test_models/test_dit.py'),
    ('final norm of a generator: no scale and shift', 'modulation.py', "elementwise_affine=options.norm == 'rms'", 'elementwise_affine=True', DIT),
    ('modulation: 1 + scale', 'modulation.py', 'return x_NLD * (1 + scale_ND', 'return x_NLD * (scale_ND', DIT),
    ('time embedding: cosines before sines', 'embedders.py', '[angles.cos(), angles.sin()]', '[angles.sin(), angles.cos()]', DIT),
    ('time embedding: 10000^(-k/128)', 'embedders.py', 'device=t_N.device) / half)', 'device=t_N.device) / (half - 1))', DIT),
    ('label embedding: one row for no class', 'embedders.py', 'nn.Embedding(num_classes + null, dim)', 'nn.Embedding(num_classes, dim)', DIT),
    ('batch norm of the probe: eps 1e-6, no scale', 'probe_head.py', 'eps=1e-6, affine=False', 'eps=1e-5, affine=False', SETTINGS),
)
_MATHS = _of(
    'usp_mm/functional',
    ('target: unbiased variance', 'patchify.py', 'target.var(dim=dims, keepdim=True)', 'target.var(dim=dims, keepdim=True, unbiased=False)', PRETRAIN),
    ('target: eps 1e-6 inside the root', 'patchify.py', '+ 1e-6).sqrt()', '+ 1e-5).sqrt()', PATCHES),
    ('patches: row, column, channel', 'patchify.py', 'x.permute(0, 2, 4, 3, 5, 1)', 'x.permute(0, 2, 4, 1, 3, 5)', (PATCHES, PRETRAIN)),
    ('masking: the smallest noise is kept', 'masking.py', 'noise_NL.argsort(dim=1, stable=True)', 'noise_NL.argsort(dim=1, stable=True, descending=True)', PRETRAIN),
    ('position table: column before row', 'pos_embed.py', 'for position in (col, row)', 'for position in (row, col)', 'tests/test_functional/test_pos_embed.py'),
    ('resizing a table: corners not aligned', 'pos_embed.py', 'align_corners=False', 'align_corners=True', TRANSFER),
    ('flow: t = 1 is data', 'flow.py', 'return Coefficients(t, 1 - t, torch.ones_like(t), -torch.ones_like(t))', 'return Coefficients(1 - t, t, -torch.ones_like(t), torch.ones_like(t))', GENERATOR),
    ('flow: sampling stays 1e-3 from the ends', 'flow.py', "_TRAIN_EPS, _SAMPLE_EPS = {'vp': 1e-5}, 1e-3", "_TRAIN_EPS, _SAMPLE_EPS = {'vp': 1e-5}, 1e-2", GENERATOR),
    ('flow: VP with β up to 20', 'flow.py', 'VP_BETA_MAX = 0.1, 20.0', 'VP_BETA_MAX = 0.1, 10.0', GENERATOR),
    ('cosine term: along channels', 'flow.py', 'torch.cosine_similarity(v, u, dim=1)', 'torch.cosine_similarity(v, u, dim=2)', GENERATOR),
    ('timestep shift below 1: more steps near noise', 'flow.py', 'return shift * t / (1 + (shift - 1) * t)', 'return t / (shift + (1 - shift) * t)', FLOW),
    ('SDE, diffusion sigma: D = σ', 'sde.py', "'sigma': lambda t, c: c.sigma,", "'sigma': lambda t, c: c.sigma.square(),", GENERATOR),
    ('SDE, last step "mean": along the drift', 'sde.py', "if kind == 'mean' else velocity", "if kind == 'euler' else velocity", GENERATOR),
    ('β from 1e-4 to 0.02', 'ddpm.py', 'beta_start: float = 1e-4, beta_end: float = 0.02) -> Tensor', 'beta_start: float = 1e-4, beta_end: float = 0.01) -> Tensor', (DDPM, PREPROCESSOR)),
    ('learned variance: between log β̃ and log β', 'ddpm.py', '(fraction + 1) / 2 * (c.log_beta', 'fraction * (c.log_beta', GENERATOR),
    ('log β̃ at t = 0: that of t = 1', 'ddpm.py', 'torch.cat([variance[1:2], variance[1:]]).log()', 'variance.clamp(min=1e-20).log()', GENERATOR),
    ('VLB: the mean learns nothing from it', 'ddpm.py', 'predict_x0(c, x_t, eps.detach())', 'predict_x0(c, x_t, eps)', DDPM),
    ('VLB: in bits', 'ddpm.py', 'kl.flatten(1).mean(1)) / math.log(2)', 'kl.flatten(1).mean(1))', GENERATOR),
    ('VLB: bins of 1/255', 'ddpm.py', 'z_above = (x - mean + 1 / 255)', 'z_above = (x - mean + 1 / 127)', GENERATOR),
    ('FID: unbiased covariance', 'metrics.py', '/ (self.count - 1)', '/ self.count', METRICS),
    ('inception score: splits of 5,000', 'metrics.py', 'split_size: int = 5000', 'split_size: int = 1000', SETTINGS),
    ('precision and recall: 3 neighbours', 'metrics.py', 'fake: Tensor, k: int = 3)', 'fake: Tensor, k: int = 5)', SETTINGS),
)
_MODELS = _of(
    'usp_mm/models',
    ('GELU of a generator: tanh', 'dit.py', "act: str = 'gelu_tanh'", "act: str = 'gelu'", DIT),
    ('no class: the label after the last', 'dit.py', 'num_classes, class_dropout, num_classes\n', 'num_classes, class_dropout, num_classes - 1\n', GENERATOR),
    ('SiT: the first half of the channels', 'dit.py', 'return out[:, : self.geometry.channels]', 'return out[:, self.geometry.channels :]', DIT),
    ('guidance: the first 3 channels', 'guidance.py', 'channels: int | None = 3,', 'channels: int | None = None,', SETTINGS),
    ('guidance: uncond + s·(cond - uncond)', 'guidance.py', 'mixed = uncond[:, :num] +', 'mixed = cond[:, :num] +', GENERATOR),
    ('guidance: what is not guided is conditional', 'guidance.py', 'cond[:, num:]]', 'uncond[:, num:]]', GENERATOR),
    ('average: 0.9999', 'generator.py', 'EMA = dict(momentum=1e-4)', 'EMA = dict(momentum=1e-3)', SETTINGS),
    ('average: decay, not share of the new', 'ema.py', 'get_ema_multi_avg_fn(1 - momentum)', 'get_ema_multi_avg_fn(momentum)', SETTINGS),
    ('samples: 127.5·x + 128', 'generator.py', '(127.5 * images + 128)', '(127.5 * images + 127.5)', 'tests/test_models/test_generator.py'),
    ('class dropout: label becomes "no class"', 'generator.py', 'masked_fill(dropped, self.denoiser.null_label)', 'masked_fill(dropped, 0)', 'tests/test_models/test_generator.py'),
    ('loss of DiT: VLB not rescaled', 'objectives/ddpm.py', 'dict(loss=mse + vb,', 'dict(loss=mse + vb / 1000,', GENERATOR),
    ('REPA: t = 1 is noise', 'objectives/flow.py', "return t if self.time_convention == 'data_at_1' else 1 - t", 'return t', 'tests/test_models/test_repa.py'),
    ('REPA: weight 0.5', 'repa/alignment.py', 'weight: float = 0.5,', 'weight: float = 1.0,', SETTINGS),
    ('REPA: negative cosine', 'repa/alignment.py', 'return -F.cosine', 'return F.cosine', 'tests/test_models/test_repa.py'),
    ('SDE: last step of 0.04', 'samplers/sde.py', 'last_step_size: float = 0.04', 'last_step_size: float = 0.02', GENERATOR),
    ('SDE: num_steps points, one step fewer', 'samplers/sde.py', 'self.num_steps, dtype=torch.float64)', 'self.num_steps + 1, dtype=torch.float64)[:-1]', GENERATOR),
    ('respacing: both ends are kept', 'samplers/ancestral.py', 'spaced_timesteps(objective.num_steps, self', 'spaced_timesteps(objective.num_steps - 1, self', GENERATOR),
    ('respacing: β from the kept ᾱ', 'samplers/ancestral.py', 'schedule(objective.alpha_bar[timesteps])', 'schedule(objective.alpha_bar)', GENERATOR),
    ('DDIM: without noise, on every s-th step from 0', 'samplers/ddim.py', 'steps_offset=0', 'steps_offset=1', GENERATOR),
    ('loss: masked patches only', 'usp_head.py', 'return (error * mask).sum() / mask.sum()', 'return error.mean()', PRETRAIN),
    ('noised input: the target stays clean', 'usp.py', 'mask)\n        return self.head.loss(pred, latents,', 'mask)\n        latents = self._noised(latents, keys)\n        return self.head.loss(pred, latents,', 'tests/test_models/test_usp.py'),
    ('mask ratio: 0.75', 'usp.py', 'mask_ratio: float = 0.75', 'mask_ratio: float = 0.6', SETTINGS),
    ('the decoder sees the class token', 'usp_decoder.py', 'x = torch.cat([x[:, :1], tokens], dim=1)', 'x = torch.cat([torch.zeros_like(x[:, :1]), tokens], dim=1)', PRETRAIN),
    ('pooling: patch tokens, without the class token', 'usp_vit.py', 'self.fc_norm(x[:, 1:].mean(dim=1))', 'self.fc_norm(x.mean(dim=1))', CLASSIFY),
    ('classification keeps the class token', 'usp_vit.py', 'return x[:, 0]', 'return x[:, 1:].mean(dim=1)', CLASSIFY),
    ('another grid: bicubic', 'weight_transfer/init_cfg.py', "pos_interp: str = 'bicubic'", "pos_interp: str = 'bilinear'", TRANSFER),
    ('transfer: the class token goes, not the last patch', 'weight_transfer/to_generator.py', 'resize_pos_embed(table[:, 1:],', 'resize_pos_embed(table[:, :-1],', TRANSFER),
    ('transfer: norms with their scale and shift', 'weight_transfer/to_generator.py', 'parts = _BLOCK_PARTS if load_norms and affine else', 'parts = _BLOCK_PARTS if not load_norms and affine else', TRANSFER),
    ('posterior: a sample of cached moments', 'data_preprocessor.py', "'moments': 'sample'}", "'moments': 'mode'}", PREPROCESSOR),
    ('posterior: the mean of images', 'data_preprocessor.py', "{'image': 'mode',", "{'image': 'sample',", PREPROCESSOR),
    ('images: (x - 127.5) / 127.5', 'data_preprocessor.py', 'std: Sequence[float] = (127.5, 127.5, 127.5)', 'std: Sequence[float] = (128.0, 128.0, 128.0)', PREPROCESSOR),
)
_OTHERS = _of(
    'usp_mm',
    ('scale of sd-f8d4: 0.18215', 'presets.py', "'sd-f8d4':     dict(codec='diffusers', channels=4,  stride=8,  scale=0.18215", "'sd-f8d4':     dict(codec='diffusers', channels=4,  stride=8,  scale=0.13025", ('tests/test_vaes/test_build.py', 'tests/test_vaes/test_sd.py')),
    ('scale of KL-16: 0.2325', 'presets.py', 'scale=0.2325', 'scale=0.2352', KL),
    ('posterior: std = exp(½ log-variance)', 'vaes/base.py', '(0.5 * logvar.clamp', '(logvar.clamp', KL),
    ('KL: padded right and below', 'vaes/kl.py', 'F.pad(x, (0, 1, 0, 1))', 'F.pad(x, (1, 0, 1, 0))', KL),
    ('KL: group norm with eps 1e-6', 'vaes/kl.py', 'nn.GroupNorm(_GROUPS, width, eps=1e-6)', 'nn.GroupNorm(_GROUPS, width, eps=1e-5)', KL),
    ('LARS: trust 0.001', 'engine/optim/lars.py', 'trust_coefficient: float = 0.001', 'trust_coefficient: float = 0.002', RUNNER),
    ('LARS: biases are not rescaled', 'engine/optim/lars.py', 'if param.ndim > 1:', 'if param.ndim > 0:', RUNNER),
)
_CONFIGS = _of(
    'configs/_base_',
    ('fine-tuning: layer decay 0.75', 'schedules/finetune_adamw_coslr_100e.py', 'layer_decay_rate=0.75', 'layer_decay_rate=0.70', RUNNER),
    ('fine-tuning: vectors have no weight decay', 'schedules/finetune_adamw_coslr_100e.py', 'flat_decay_mult=0.0', 'flat_decay_mult=1.0', RUNNER),
    ('fine-tuning: the class token has none', 'schedules/finetune_adamw_coslr_100e.py', "'cls_token': dict(decay_mult=0.0)", "'cls_token': dict(decay_mult=1.0)", RUNNER),
    ('pretraining: betas 0.9, 0.95', 'schedules/usp_adamw_coslr_800e.py', 'betas=(0.9, 0.95)', 'betas=(0.95, 0.9)', SETTINGS),
    ('pretraining: vectors have no weight decay', 'schedules/usp_adamw_coslr_800e.py', 'flat_decay_mult=0.0', 'flat_decay_mult=1.0', SETTINGS),
    ('pretraining: 40 epochs of warm-up', 'schedules/usp_adamw_coslr_800e.py', "end=40, convert", "end=20, convert", SETTINGS),
    ('generators: no weight decay', 'schedules/gen_adamw_400k.py', 'weight_decay=0.0', 'weight_decay=0.05', SETTINGS),
    ('generators: a sample of the posterior', 'models/dit-base-p2.py', ", posterior='sample'", '', SETTINGS),
    ('DiT: 250 steps', 'models/dit-base-p2.py', 'num_steps=250', 'num_steps=50', SETTINGS),
    ('SiT: diffusion sigma', 'models/sit-base-p2.py', "diffusion='sigma'", "diffusion='linear'", SETTINGS),
)
# fmt: on

MUTATIONS = [*_LAYERS, *_MATHS, *_MODELS, *_OTHERS, *_CONFIGS]
