"""Small models to compile, and batches for them."""

from typing import Any

import torch
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

from usp_mm.datasets import EpochIndex

ARCH = dict(embed_dims=32, depth=2, num_heads=2, decoder_dims=16, decoder_depth=2, decoder_heads=2)
PREPROCESSOR = dict(type='LatentDataPreprocessor', load_vae=False)
GENERATORS = {
    'DiT': (dict(type='DDPMObjective'), dict(type='AncestralSampler', num_steps=2)),
    'SiT': (dict(type='FlowObjective'), dict(type='SDESampler', num_steps=2)),
}


def build(kind: str, seed: int = 0, **changes: Any) -> Any:
    """'USP', 'USPClassifier' (drop path), 'DiT' or 'SiT', with weights that nothing hides."""
    backbone = dict(type='USPViT', arch=ARCH, img_size=64)
    if kind == 'USP':
        cfg = dict(type='USP', backbone=backbone)
    elif kind == 'USPClassifier':
        cfg = dict(
            type=kind,
            backbone=dict(backbone, arch={**ARCH, 'depth': 4}, drop_path_rate=0.2),
            head=dict(type='LinearClsHead', num_classes=10),
        )
    else:
        objective, sampler = GENERATORS[kind]
        denoiser = dict(type=kind, **{'arch': ARCH, 'img_size': 64, 'num_classes': 10, **changes.pop('denoiser', {})})
        cfg = dict(type='LatentDiffusionGenerator', denoiser=denoiser, objective=objective, sampler=sampler)
    torch.manual_seed(seed)
    model = MODELS.build({**cfg, 'data_preprocessor': PREPROCESSOR, **changes})
    for parameter in model.parameters():
        if parameter.ndim < 3:
            torch.nn.init.normal_(parameter.data, std=0.05)
    if kind in GENERATORS:
        model._sync_ema()
    return model


def batch(num: int = 4, epoch: int = 2) -> dict[str, Any]:
    latents = torch.randn(num, 4, 8, 8, generator=torch.Generator().manual_seed(num))
    samples = []
    for i in range(num):
        sample = DataSample().set_gt_label(i % 10)
        sample.set_field(EpochIndex(i, epoch, 5), 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return dict(inputs=latents, data_samples=samples)


def step(model: Any, num: int = 4, amp: bool = False) -> torch.Tensor:
    """The loss of a training batch, and its gradients."""
    model.train()
    model.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=amp):
        loss = model.loss(**batch(num))['loss']
    loss.backward()
    return loss.detach()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
