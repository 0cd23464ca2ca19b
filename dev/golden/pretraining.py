"""Golden numbers of pretraining, classification, optimisers and KL-16, from the official USP code and timm's ViT."""

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recipe import Recorder, drawing
from torch import nn

LAYER_NORM = partial(nn.LayerNorm, eps=1e-6)
EPOCHS = (0, 0.5, 1, 20, 39.75, 40, 41, 100.25, 400, 799, 799.9)


def record(rec: Recorder) -> dict[str, torch.Tensor]:
    """Everything of this file; returns the weights of the encoder that generators start from."""
    with rec.importing('USP/pretrain'):
        model = mae(rec, 'sdvae_c4s8_normpix', 'usp-pretrain', 8, 2, 4, norm_pix_loss=True)
        mae(rec, 'sdvae_c4s8_rawtarget', None, 8, 2, 4, norm_pix_loss=False)
        mae(rec, 'sdvae_c4s8_normimage', None, 8, 2, 4, norm_pix_loss=True, norm_image=True)
        mae(rec, 'kl16_c16s16_normpix', 'usp-pretrain-kl16', 6, 1, 16, norm_pix_loss=True)
        strong_mae(rec)
        positions(rec)
        classifiers(rec, model)
        linear_probe(rec)
        optimisation(rec)
        autoencoder(rec)
    return model.state_dict()


def build_mae(rec: Recorder, size: int, patch: int, channels: int, **options: Any) -> Any:
    from models_mae import MaskedAutoencoderViT

    width, depth, heads = rec.arch
    encoder = dict(img_size=size, patch_size=patch, in_chans=channels, embed_dim=width, depth=depth, num_heads=heads)
    decoder = dict(decoder_embed_dim=32, decoder_depth=2, decoder_num_heads=4)
    return MaskedAutoencoderViT(**encoder, **decoder, mlp_ratio=4, norm_layer=LAYER_NORM, **options)


def mask_noise(rec: Recorder, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.RandomState(7 + rec.salt).rand(*shape).astype('float32'))


def mae(rec: Recorder, tag: str, kind: str | None, size: int, patch: int, channels: int, **options: Any) -> Any:
    """One setting of pretraining: forward, loss, four gradients."""
    model = rec.fill(build_mae(rec, size, patch, channels, **options), kind)
    x, noise = rec.input(tag + 'x', 2, channels, size, size), mask_noise(rec, 2, model.patch_embed.num_patches)
    with drawing('rand', lambda *_, **__: noise.clone()):
        latent, mask, ids_restore = model.forward_encoder(x, 0.75)
    pred, target = model.forward_decoder(latent, ids_restore), rec.input(tag + 'target', *x.shape)
    loss = model.forward_loss(x, pred, mask)
    learned = [model.patch_embed.proj.weight, model.blocks[0].attn.qkv.weight, model.cls_token, model.mask_token]
    gradients = torch.autograd.grad(loss, learned, retain_graph=True)
    rec.save(
        f'pretrain_{tag}',
        **dict(x=x, noise=noise, latent=latent, mask=mask, ids_restore=ids_restore, pred=pred, loss=loss, target=target),
        loss_other_target=model.forward_loss(target, pred, mask),
        unpatchified=model.unpatchify(pred),
        pos_embed=model.pos_embed,
        decoder_pos_embed=model.decoder_pos_embed,
        **dict(zip(('grad_patch', 'grad_qkv0', 'grad_cls', 'grad_mask_token'), gradients, strict=True)),
    )
    return model


def strong_mae(rec: Recorder) -> None:
    """The same with weights of 0.1, at which the kinds of GELU differ by more than rounding."""
    model = rec.fill(build_mae(rec, 8, 2, 4, norm_pix_loss=True), deviation=0.1)
    x, noise = rec.input('strong', 3, 4, 8, 8), mask_noise(rec, 3, 16)
    with drawing('rand', lambda *_, **__: noise.clone()):
        latent, mask, ids_restore = model.forward_encoder(x, 0.75)
    pred = model.forward_decoder(latent, ids_restore)
    rec.save('strong_mae', x=x, noise=noise, latent=latent, pred=pred, loss=model.forward_loss(x, pred, mask))


def positions(rec: Recorder) -> None:
    from util.pos_embed import get_2d_sincos_pos_embed as table

    rec.save(
        'pos_embed',
        grid14_dim48_cls=table(48, 14, cls_token=True),
        grid16_dim1152=table(1152, 16, cls_token=False)[::37, ::31],
    )


def build_vit(rec: Recorder, size: int, depth: int, pool: str, **options: Any) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    width, _, heads = rec.arch
    shape = dict(img_size=size, patch_size=2, in_chans=4, embed_dim=width, depth=depth, num_heads=heads)
    return VisionTransformer(**shape, qkv_bias=True, num_classes=rec.num_classes, global_pool=pool, **options)


def classifiers(rec: Recorder, pretrained: Any) -> None:
    """timm's ViT, as the official code uses it, on the pretrained encoder."""
    x = rec.input('clsx', 3, 4, 8, 8)
    for pool in ('token', 'avg'):
        model = rec.fill(build_vit(rec, 8, rec.arch[1], pool, mlp_ratio=4, norm_layer=LAYER_NORM), f'timm-{pool}')
        model.load_state_dict(pretrained.state_dict(), strict=False)
        model.eval()
        rec.save(f'classify_{pool}', x=x, logits=model(x), features=model.forward_features(x))


def linear_probe(rec: Recorder) -> None:
    """BatchNorm without affine, a linear layer, three steps of the official LARS."""
    from util.lars import LARS

    width = rec.arch[0]
    norm, linear = nn.BatchNorm1d(width, affine=False, eps=1e-6), nn.Linear(width, rec.num_classes)
    with torch.no_grad():
        for name, parameter in linear.named_parameters():
            parameter.copy_(rec.weight(f'head.{name}', tuple(parameter.shape)))
    optimizer = LARS(linear.parameters(), lr=3.2, weight_decay=0.0)
    found = dict(weight0=linear.weight.clone(), bias0=linear.bias.clone())
    for i in range(3):
        features = rec.input(f'probe{i}', 16, width)
        labels = torch.from_numpy(np.random.RandomState(i).randint(0, rec.num_classes, 16))
        loss = nn.functional.cross_entropy(linear(norm(features)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found |= {f'loss{i}': loss, f'weight{i + 1}': linear.weight.clone(), f'bias{i + 1}': linear.bias.clone()}
        found |= {f'features{i}': features, f'labels{i}': labels}
    rec.save('linear_probe_lars', **found, running_mean=norm.running_mean, running_var=norm.running_var)


def optimisation(rec: Recorder) -> None:
    """Groups of layer-wise decay, and learning rates at some epochs of pretraining."""
    from util.lr_decay import param_groups_lrd
    from util.lr_sched import adjust_learning_rate

    model = build_vit(rec, 28, 12, 'avg')
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    model.pos_embed.requires_grad_(False)
    groups = param_groups_lrd(model, 0.05, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.75)
    decayed = {names[id(p)]: [group['lr_scale'], group['weight_decay']] for group in groups for p in group['params']}
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = SimpleNamespace(lr=2.4e-3, min_lr=0.0, warmup_epochs=40, epochs=800)
    rates = [[epoch, adjust_learning_rate(optimizer, epoch, settings)] for epoch in EPOCHS]
    content = dict(layer_decay_075_depth12=decayed, lr_800ep_warmup40_peak2p4e3=rates)
    (rec.out / 'optim.json').write_text(json.dumps(content, indent=1))


def autoencoder(rec: Recorder) -> None:
    """KL-16 at base width 32."""
    from vae import Decoder, DiagonalGaussianDistribution, Encoder

    shape = dict(ch=32, ch_mult=(1, 1, 2, 2, 4), z_channels=16)
    parts = dict(encoder=Encoder(**shape), decoder=Decoder(**shape))
    parts |= dict(quant_conv=nn.Conv2d(32, 32, 1), post_quant_conv=nn.Conv2d(16, 16, 1))
    for name, part in parts.items():
        rec.fill(part, 'kl16', prefix=f'{name}.')
    image = rec.input('vaeimg', 1, 3, 64, 64).clamp(-1, 1)
    moments = parts['quant_conv'](parts['encoder'](image))
    posterior = DiagonalGaussianDistribution(moments)
    keys = [name for name in rec.names['kl16'] if name.startswith(('encoder.', 'decoder.'))]
    rec.save(
        'vae_kl16',
        **dict(image=image, moments=moments, mean=posterior.mean, std=posterior.std, latent=posterior.mean * 0.2325),
        decoded=parts['decoder'](parts['post_quant_conv'](posterior.mean)),
        keys=np.array(sorted(keys)),
    )
