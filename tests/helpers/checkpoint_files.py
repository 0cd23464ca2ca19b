"""Checkpoints as other projects write them, of tiny networks with the golden weights."""

from argparse import Namespace
from pathlib import Path

import torch
from mmpretrain.registry import MODELS
from torch import Tensor

from helpers.golden import NAMES, golden_weights, official_weights

ARCH = dict(embed_dims=48, depth=2, num_heads=3, decoder_dims=32, decoder_depth=2, decoder_heads=4)
NUM_CLASSES = 10
#: Kind of checkpoint -> of golden names, where they differ.
GOLDEN_KINDS = dict(timm='timm-token')


def cfg_of(kind: str, **kwargs) -> dict:
    """Config of the model that a checkpoint of this kind is loaded into."""
    latents = dict(type='LatentDataPreprocessor', load_vae=False)
    if kind in ('usp-pretrain', 'mae'):
        if kind == 'mae':
            latents['vae'] = 'pixel'
        return dict(type='USP', data_preprocessor=latents, backbone=dict(type='USPViT', arch=ARCH, img_size=64, **kwargs))
    if kind == 'timm':
        backbone = dict(type='USPViT', arch=ARCH, img_size=64, **kwargs)
        head = dict(type='VisionTransformerClsHead', num_classes=NUM_CLASSES)
        return dict(type='USPClassifier', data_preprocessor=latents, backbone=backbone, head=head)
    flow = kind in ('sit', 'usp-sit', 'repa', 'lightningdit')
    denoiser = dict(type='SiT' if flow else 'DiT', arch=ARCH, img_size=64, num_classes=NUM_CLASSES)
    denoiser.update(dict(norm_affine=kind.startswith('usp'), learn_sigma=kind != 'repa') | kwargs)
    return dict(
        type='LatentDiffusionGenerator',
        data_preprocessor=latents,
        denoiser=denoiser,
        objective=dict(type='FlowObjective' if flow else 'DDPMObjective'),
        sampler=dict(type='ODESampler' if flow else 'DDIMSampler', num_steps=4),
    )


def build(kind: str, **kwargs):
    """That model, in eval mode."""
    return MODELS.build(cfg_of(kind, **kwargs)).eval()


def load_strictly(model, path: Path):
    """The model with a file's weights; every key and shape must fit."""
    model.load_state_dict(torch.load(path, weights_only=True)['state_dict'], strict=True)
    return model


def official(kind: str, **kwargs) -> dict[str, Tensor]:
    """One set of weights with the kind's names; tables are as official code makes them.

    Kinds with golden numbers take names and shapes from the golden files, variants (`kwargs`) and others from the model here.
    """
    golden = GOLDEN_KINDS.get(kind, kind)
    if not kwargs and golden in NAMES:
        return official_weights(golden)
    model = build(kind, **kwargs)
    own = model.denoiser.state_dict() if hasattr(model, 'denoiser') else _flat(model.state_dict())
    weights = golden_weights({name: value.shape for name, value in own.items()})
    weights |= {name: own[name].clone() for name in own if name.endswith('pos_embed')}
    if kind == 'lightningdit':
        weights = _lightning(weights)
    return weights


#: REPA's projector in the golden file: 48 -> 40 -> 40 -> 24, its layers by number.
PROJECTOR = {name.removeprefix('projectors.0.'): shape for name, shape in NAMES['repa'].items() if 'projectors' in name}


def _flat(state: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in ('backbone.', 'neck.', 'head.layers.'):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _lightning(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """LightningDiT's: RMSNorm, SwiGLU, query and key norms, a rotary table."""
    result = {name: value for name, value in weights.items() if '.mlp.fc' not in name}
    width, hidden = ARCH['embed_dims'], 128
    extra = {'final_layer.norm_final.weight': (width,)}
    for i in range(ARCH['depth']):
        block = {'norm1.weight': (width,), 'norm2.weight': (width,), 'attn.q_norm.weight': (16,), 'attn.k_norm.weight': (16,),
                 'mlp.w12.weight': (2 * hidden, width), 'mlp.w12.bias': (2 * hidden,), 'mlp.w3.weight': (width, hidden),
                 'mlp.w3.bias': (width,)}  # fmt: skip
        extra |= {f'blocks.{i}.{name}': shape for name, shape in block.items()}
    extra |= {'feat_rope.freqs_cos': (16, 16), 'feat_rope.freqs_sin': (16, 16)}
    return result | golden_weights(extra)


def save_official(kind: str, path: Path, **kwargs) -> dict[str, dict[str, Tensor]]:
    """A file as the project of this kind writes it; returns its sets of weights."""
    weights = official(kind, **kwargs)
    if kind in ('usp-pretrain', 'mae'):
        content = dict(model=weights, optimizer=dict(state={}, param_groups=[]), epoch=799, args=Namespace(lr=1.5e-4))
        sets = dict(model=weights)
    elif kind == 'timm':
        content, sets = dict(model=weights), dict(model=weights)
    else:
        average = {name: value if name == 'pos_embed' else value * 0.5 for name, value in weights.items()}
        sets = dict(model=weights, ema=average)
        args = Namespace(global_batch_size=256) if kind.endswith('dit') else Namespace(path_type='linear')
        content = dict(sets, opt=dict(state={}, param_groups=[]), args=args)
        if kind == 'repa':
            content['steps'] = 400
        if kind == 'lightningdit':
            content['model'] = {f'module.{name}': value for name, value in weights.items()}
            del content['args']
    torch.save(content, path)
    return sets


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """The same names, and the same bits under each."""
    return found.keys() == expected.keys() and all(
        found[name].dtype == expected[name].dtype and torch.equal(found[name], expected[name]) for name in expected
    )
