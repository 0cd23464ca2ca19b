"""Model configs for checkpoints of other projects, derived from the kind of file and the shapes in it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.logging import MMLogger

from usp_mm.presets import ARCHS, VAES

from .conversion_data import Checkpoint, shapes_of
from .kinds import Shapes
from .sources import family_of

#: Number of latent channels -> VAE of the projects' official code.
_VAE_OF = {4: 'sd-f8d4', 16: 'kl-f16d16', 32: 'va-f16d32', 3: 'pixel'}
#: ImageNet's mean and standard deviation, with which MAE and its classifiers normalise pixels.
_PIXELS = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
_FLOW = ('sit', 'usp-sit', 'repa', 'lightningdit')


@dataclass(frozen=True)
class Given:
    """Facts on a network that the user gives because its file does not hold them.

    Attributes:
        arch: A preset of `usp_mm.presets.ARCHS`, or a dict of its keys.
        vae: A preset of `usp_mm.presets.VAES`.
        num_classes: Number of classes of a generator.
    """

    arch: str | Mapping[str, int] | None = None
    vae: str | None = None
    num_classes: int | None = None


def model_config(source: Checkpoint, given: Given) -> dict[str, Any]:
    """The entry `model` of a config that fits a checkpoint of another project.

    Settings that shapes do not show (activation, sampler, normalisation) are those of the project's official code. They are
    logged where the names allow more than one.

    Args:
        source: Checkpoint with one or two sets of weights under official names.
        given: Facts from the user, which take precedence over the shapes.

    Raises:
        ValueError: The checkpoint is a VAE, or neither it nor `given` has a necessary fact; the message names the
            argument.
    """
    family = family_of(source)
    if family == 'vae':
        raise ValueError(f'{source.kind} is a VAE and not a model: give it as vae=dict(name=…, path=…) of one')
    shapes = shapes_of(next(iter(source.sets.values())))
    return _encoder(source, shapes, given) if family == 'encoder' else _generator(source, shapes, given)


def _encoder(source: Checkpoint, shapes: Shapes, given: Given) -> dict[str, Any]:
    _, channels, patch, _ = shapes['patch_embed.proj.weight']
    vae = _vae(channels, given)
    decoder = any(name.startswith('decoder_') for name in shapes)
    backbone = dict(
        type='USPViT',
        arch=_arch(shapes, given, decoder),
        img_size=_img_size(shapes['pos_embed'][1] - 1, patch, vae),
        patch_size=patch,
    )
    preprocessor: dict[str, Any] = dict(type='LatentDataPreprocessor', vae=vae)
    if vae == 'pixel':
        preprocessor |= _PIXELS
        _assume("images are normalised with ImageNet's mean and std, as MAE's", 'model.data_preprocessor.mean and .std')
    if decoder:
        _assume("targets were normalised patch by patch, as the released ones'", 'model.head.norm_pix')
        return dict(type='USP', data_preprocessor=preprocessor, backbone=backbone, neck=dict(type='USPDecoder'))
    backbone |= dict(out_type='avg_featmap' if 'fc_norm.weight' in shapes else 'cls_token', final_norm='norm.weight' in shapes)
    model: dict[str, Any] = dict(type='USPClassifier', data_preprocessor=preprocessor, backbone=backbone)
    if 'head.0.running_mean' in shapes:
        model['neck'] = dict(type='ClsBatchNormNeck')
    head = shapes.get('head.1.weight') or shapes.get('head.weight')
    if head is not None:
        model['head'] = dict(type='VisionTransformerClsHead', num_classes=head[0], loss=dict(type='CrossEntropyLoss'))
    return model


def _generator(source: Checkpoint, shapes: Shapes, given: Given) -> dict[str, Any]:
    _, channels, patch, _ = shapes['x_embedder.proj.weight']
    vae, flow = _vae(channels, given), source.kind in _FLOW
    rows = shapes['y_embedder.embedding_table.weight'][0]
    num_classes = given.num_classes or rows - 1
    if num_classes not in (rows, rows - 1):
        raise ValueError(f'num_classes={num_classes}: the label embedding has {rows} rows, one of them for "no class" or none')
    if given.num_classes is None:
        _assume(f'of {rows} rows of the label embedding the last is "no class"', f'num_classes={rows}, if there is none', '')
    denoiser = dict(
        type='SiT' if flow else 'DiT',
        arch=_arch(shapes, given),
        img_size=_img_size(shapes['pos_embed'][1], patch, vae),
        patch_size=patch,
        num_classes=num_classes,
        class_dropout=0.1 if num_classes < rows else 0.0,
        norm_affine='blocks.0.norm1.weight' in shapes,
        learn_sigma=shapes['final_layer.linear.weight'][0] == 2 * channels * patch**2,
        block=_block(source, shapes),
    )
    objective = dict(type='FlowObjective', path='linear', prediction='velocity') if flow else dict(type='DDPMObjective')
    if source.kind == 'repa':
        objective['time_convention'] = 'noise_at_1'
    return dict(
        type='LatentDiffusionGenerator',
        data_preprocessor=dict(type='LatentDataPreprocessor', vae=vae),
        denoiser=denoiser,
        objective=objective,
        sampler=_sampler(source.kind),
        guidance=dict(scale=1.0, channels=3),
        ema=None,
        sample_model='model',
    )


def _sampler(kind: str) -> dict[str, Any]:
    """The sampler of the official code."""
    if kind == 'lightningdit':
        return dict(type='ODESampler', method='euler', num_steps=250)
    if kind in _FLOW:
        return dict(type='SDESampler', method='euler', num_steps=250, diffusion='sigma', last_step='mean', last_step_size=0.04)
    return dict(type='AncestralSampler', num_steps=250)


def _block(source: Checkpoint, shapes: Shapes) -> str | dict[str, Any]:
    rope = any(name.startswith('feat_rope.') for name, _ in source.dropped)
    options = dict(
        norm='layer' if 'blocks.0.norm1.bias' in shapes or 'blocks.0.norm1.weight' not in shapes else 'rms',
        mlp='swiglu' if 'blocks.0.mlp.w12.weight' in shapes else 'gelu',
        rope=rope or source.kind == 'lightningdit',
        qk_norm='blocks.0.attn.q_norm.weight' in shapes,
    )
    if options['rope'] and not rope:
        _assume('positions are rotary, although the file has no feat_rope', 'model.denoiser.block.rope=False')
    return options if source.kind == 'lightningdit' else 'plain'


def _vae(channels: int, given: Given) -> str:
    if given.vae is not None:
        if VAES[given.vae]['channels'] != channels:
            raise ValueError(
                f"vae='{given.vae}' has {VAES[given.vae]['channels']} latent channels, the network of the file {channels}"
            )
        return given.vae
    if channels not in _VAE_OF:
        raise ValueError(f'a network on {channels} channels, of no known VAE: name its preset with vae=NAME')
    if channels == 4:
        _assume(f"latents are of '{_VAE_OF[channels]}'", "vae='sd-f8d4-mse' or dict(name=…, path=…)", '')
    return _VAE_OF[channels]


def _img_size(tokens: int, patch: int, vae: str) -> int:
    return round(tokens**0.5) * patch * int(VAES[vae]['stride'])


def _arch(shapes: Shapes, given: Given, decoder: bool = False) -> str | dict[str, int]:
    """The preset with this depth and width, which fixes the number of heads, or else a dict of sizes."""
    sizes = dict(depth=_depth(shapes, 'blocks'), embed_dims=shapes['blocks.0.attn.proj.weight'][0])
    if decoder:
        sizes |= dict(
            decoder_depth=_depth(shapes, 'decoder_blocks'), decoder_dims=shapes['decoder_blocks.0.attn.proj.weight'][0]
        )
    if isinstance(given.arch, str):
        return given.arch
    asked = dict(given.arch or {})
    heads = ['num_heads', 'decoder_heads'] if decoder else ['num_heads']
    norm = shapes.get('blocks.0.attn.q_norm.weight')
    if norm is not None and 'num_heads' not in asked:
        asked['num_heads'] = sizes['embed_dims'] // norm[0]
    if all(name in asked for name in heads):
        return {**sizes, **asked}
    for name, row in ARCHS.items():
        if not asked and all(row[key] == value for key, value in sizes.items()):
            return name
    wanted = ', '.join(f'{name}=…' for name in heads if name not in asked)
    raise ValueError(
        f'{sizes["depth"]} blocks of width {sizes["embed_dims"]}'
        f'{f", decoder {list(sizes.values())[2:]}" if decoder else ""} are no preset of {", ".join(ARCHS)}, and a file does '
        f'not show the number of attention heads: give arch=dict({wanted})'
    )


def _depth(shapes: Shapes, stack: str) -> int:
    return 1 + max(int(name.split('.')[1]) for name in shapes if name.startswith(f'{stack}.'))


def _assume(what: str, key: str, through: str = 'cfg_options: ') -> None:
    """Log an assumption about something that neither names nor shapes show."""
    MMLogger.get_current_instance().log(
        logging.INFO, f'the file does not say that {what}: this is assumed, change it with {through}{key}'
    )
