"""Parameters and operations of configs on the meta device, against published counts and counts by hand."""

import json
import math
import subprocess
import sys

import pytest
import torch
from diffusers import AutoencoderTiny
from helpers.small_segmentation import shrink_segmentation
from helpers.small_world import ROOT
from mmengine.config import Config
from mmpretrain.registry import MODELS

from usp_mm.analysis.complexity import IMAGENET, _sample, build_meta, complexity, gpu_hours
from usp_mm.engine.records.flops import count_codec, count_flops
from usp_mm.vaes import build_codec
from usp_mm.vaes.laptop import make_laptop_vae
from usp_mm.vaes.shapes import blank_codec

TOOL = ROOT / 'tools' / 'analysis' / 'get_flops.py'
SIT = ROOT / 'configs' / 'sit'
XL = 'configs/dit/dit-xl-p2_usp-pre_cfg_8xb32-1200k_in1k-256px.py'
TRAIN_VAE = 'configs/vit/vit-base_usp-pre_train-vae_8xb128-amp-coslr-100e_in1k.py'
UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize('name', ['sd-f8d4', 'kl-f16d16', 'tiny', 'laptop', 'taesd'])
def test_blank_autoencoders_are_the_real_ones(name, small_world, tiny_vae_folder):
    blank = blank_codec(name)
    if name == 'sd-f8d4':  # Stable Diffusion's, as diffusers builds it
        from diffusers import AutoencoderKL

        blocks = dict(down_block_types=('DownEncoderBlock2D',) * 4, up_block_types=('UpDecoderBlock2D',) * 4)
        with torch.device('meta'):
            real = AutoencoderKL(block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32, **blocks)
        assert parameters(blank.network) == parameters(real) == 83_653_863
        return
    if name == 'tiny':
        real = build_codec(name, path=tiny_vae_folder).network
        assert {k: v.shape for k, v in blank.network.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
        return
    if name in ('laptop', 'taesd'):
        real = make_laptop_vae() if name == 'laptop' else AutoencoderTiny()
        assert {k: v.shape for k, v in blank.network.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
        return
    golden = build_codec(name, path=small_world.kl16_file).network  # of another width, with the same layers
    assert list(blank.network.state_dict()) == list(golden.state_dict())


def test_operations_of_an_autoencoder():
    codec = blank_codec('tiny')
    counted = count_codec(codec, 64)
    assert not any(p.requires_grad for p in codec.network.parameters())
    pixels = 64 * 64
    convolutions = [  # (pixels of the output, in, out, kernel): 4 levels of one block, 3 strided ones, the middle
        (pixels, 3, 8, 9), (pixels, 8, 8, 9), (pixels, 8, 8, 9), (pixels / 4, 8, 8, 9),
        (pixels / 4, 8, 16, 9), (pixels / 4, 16, 16, 9), (pixels / 4, 8, 16, 1), (pixels / 16, 16, 16, 9),
        (pixels / 16, 16, 32, 9), (pixels / 16, 32, 32, 9), (pixels / 16, 16, 32, 1), (pixels / 64, 32, 32, 9),
        (pixels / 64, 32, 64, 9), (pixels / 64, 64, 64, 9), (pixels / 64, 32, 64, 1),
        *[(pixels / 64, 64, 64, 9)] * 4, *[(pixels / 64, 64, 64, 1)] * 4, (pixels / 64, 64, 8, 9), (pixels / 64, 8, 8, 1),
    ]  # fmt: skip
    attention = 4 * 64 * 64 * 64
    assert counted['encode'] == sum(2 * n * i * o * k for n, i, o, k in convolutions) + attention
    first = 2 * pixels * 3 * 8 * 9  # the image needs no gradient
    assert counted['encode_train'] == 3 * counted['encode'] - first


def test_dit_xl_is_the_published_one():
    cost = complexity(Config.fromfile(ROOT / XL))
    # DiT (arXiv 2212.09748), table 4: 675 M parameters, 118.64 G multiply-adds
    assert cost['network']['trainable'] == pytest.approx(675e6, rel=1e-3)
    assert cost['network']['forward'] == pytest.approx(2 * 118.64e9, rel=2e-4)
    network, vae = cost['network'], cost['vae']
    assert (vae['name'], vae['trained'], vae['online']) == ('sd-f8d4', False, True) and vae['train'] == vae['encode']
    assert cost['step'] == 256 * (network['train'] + vae['encode'])
    assert cost['images'] == 1_200_000 * 256 and cost['total'] == cost['images'] * cost['step'] // 256
    # 250 steps with and without class
    assert cost['sample'] == dict(calls=500, total=500 * network['forward'] + vae['decode'])
    assert gpu_hours(989.4e12 * 3600) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ('sampler', 'guidance', 'calls'),
    [
        (dict(type='SDESampler', method='euler', last_step='mean'), {}, 5),
        (dict(type='SDESampler', method='euler', last_step=None), {}, 4),
        (dict(type='SDESampler', method='heun', last_step='mean'), {}, 9),
        (dict(type='ODESampler', method='euler'), {}, 4),
        (dict(type='ODESampler', method='heun2'), {}, 8),
        (dict(type='ODESampler', method='euler'), dict(scale=4.0), 8),
        (dict(type='ODESampler', method='euler'), dict(scale=4.0, interval=(0.25, 0.6)), 6),  # two of 0, 1/4, 1/2, 3/4
    ],
)
def test_calls_of_a_sampler_are_those_that_it_makes(sampler, guidance, calls):
    model = dict(sampler=sampler | dict(num_steps=5), objective=dict(type='FlowObjective'), guidance=guidance)
    assert _sample(Config(dict(model=model)), 10, dict(decode=3)) == dict(calls=calls, total=10 * calls + 3)


def test_a_cache_needs_no_encoder_and_epochs_are_of_imagenet():
    cfg = Config.fromfile(ROOT / 'configs/usp/usp_vit-base_kl-f16d16_64xb64-amp-coslr-800e_in1k-latents.py')
    cost = complexity(cfg)
    assert cost['vae']['train'] == 0 < cost['vae']['encode'] and cost['sample'] is None and cost['teacher'] is None
    assert cost['images'] == 800 * IMAGENET and cost['step'] == 4096 * cost['network']['train']
    assert cfg.model.data_preprocessor.vae.path == 'pretrained/kl16.ckpt'  # the config is as it was
    cfg.train_dataloader.dataset.data_root = 'data/imagenet100_latents/kl-f16d16_224px'
    assert complexity(cfg)['images'] is complexity(cfg)['total'] is None


def test_a_vae_whose_scale_is_in_a_folder_needs_none():
    cfg = Config.fromfile(ROOT / 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py')
    tiny = complexity(cfg)
    cfg.model.data_preprocessor.vae = 'laptop'
    laptop = complexity(cfg)
    assert (tiny['vae']['name'], laptop['vae']['name']) == ('tiny', 'laptop')
    assert laptop['network']['forward'] > 3 * tiny['network']['forward']  # four times the tokens


def test_a_trained_encoder_is_counted_the_same_in_a_run(small_world):
    cfg = small_world.shrink(Config.fromfile(ROOT / TRAIN_VAE))
    cost = complexity(cfg)
    assert cost['vae']['trained'] and cost['vae']['train'] > 2.9 * cost['vae']['encode']
    model = MODELS.build(cfg.model)
    scale = model.backbone.codec
    counted = count_flops(model)
    assert model.backbone.codec is scale and scale.device == torch.device('cpu')
    assert counted['forward'] == cost['network']['forward'] + cost['vae']['encode']
    # here the latents have a gradient too, which is one more product of the patch embedding
    embedding = 2 * 196 * 16 * 32
    assert counted['train'] == cost['network']['train'] + cost['vae']['train'] + embedding


def test_a_segmentor_with_all_its_heads(small_world):
    cfg = shrink_segmentation(small_world, Config.fromfile(ROOT / UPERNET))
    cfg.model.norm_cfg = dict(type='SyncBN')
    cost = complexity(cfg)
    model = build_meta(cfg)
    without = {key: value for key, value in cfg.model.items() if key != 'auxiliary_head'}
    fewer = complexity(Config({**cfg.to_dict(), 'model': without}))
    # the auxiliary head: 3 × 3 convolution of 4 × 4 tokens to 8 channels, then 11 classes
    assert cost['network']['forward'] - fewer['network']['forward'] == 2 * 16 * (9 * 32 * 8 + 8 * 11)
    assert cost['vae']['train'] == cost['vae']['encode'] > 0
    assert all(m.training for m in model.modules())
    assert cost['images'] == 16


def test_the_teacher_of_repa_is_listed_apart():
    """DINOv2-B on 224 pixels, online and cached, and the three layers of the projector."""
    online, cached = (
        complexity(Config.fromfile(SIT / f'sit-xl-p2_repa_8xb32-400k_in1k-256px{kind}.py')) for kind in ('', '-latents')
    )
    teacher, width = online['teacher'], 768
    assert teacher['name'] == 'dinov2-b' and teacher['parameters'] == pytest.approx(86e6, rel=0.01)
    block = 2 * 257 * width * width * 12 + 4 * 257 * 257 * width
    assert teacher['forward'] == teacher['train'] == 12 * block + 2 * 256 * 14 * 14 * 3 * width
    layers = 1152 * 2048 + 2048 * 2048 + 2048 * 768
    assert teacher['projector'] == dict(parameters=layers + 2 * 2048 + 768, train=3 * 2 * 256 * layers)
    assert (teacher['online'], cached['teacher']['online'], cached['teacher']['train']) == (True, False, 0)
    plain = complexity(Config.fromfile(SIT / 'sit-xl-p2_8xb32-400k_in1k-256px.py'))
    assert plain['teacher'] is None and plain['network'] == online['network']
    assert online['step'] - plain['step'] == 256 * (teacher['forward'] + teacher['projector']['train'])


def test_a_teacher_that_looks_through_the_vae():
    cost = complexity(Config.fromfile(SIT / 'sit-tiny-p2_repa_1xb64-2k_digits.py'))
    encoder = complexity(Config.fromfile(ROOT / 'configs/vit/vit-tiny_usp-pre_1xb64-coslr-10e_digits.py'))
    head = 2 * 128 * 10
    assert cost['teacher']['forward'] == encoder['network']['forward'] - head


def test_counting_leaves_the_ode_solver_usable():
    """In a process of its own: torchdiffeq makes its tables of coefficients when it is first imported."""
    code = f"""
import torch, usp_mm
from mmengine.config import Config
from mmpretrain.registry import MODELS
from usp_mm.analysis.complexity import complexity
complexity(Config.fromfile({str(SIT / 'sit-xl-p2_usp-pre_ode_8xb32-400k_in1k-256px.py')!r}))
from torchdiffeq import odeint
print(float(odeint(lambda t, y: y, torch.ones(()), torch.tensor([0.0, 1.0]))[-1]))
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=300)
    assert float(done.stdout) == pytest.approx(math.e, rel=1e-4), done.stderr


def test_tool(tmp_path, tool_here):
    def call(*words):
        return tool_here(TOOL, *words)[1]

    out = tmp_path / 'new' / 'cost.json'
    tiny = ROOT / 'configs/sit/sit-tiny-p2_usp-pre_1xb64-2k_digits.py'
    text = call(tiny, '--json', out, '--peak', '100', '--utilisation', '0.5', '--cfg-options', 'model.denoiser.arch=base')
    assert 'network' in text and 'VAE tiny, encoder (cached)' in text and 'optimizer step of 64 images' in text
    result = json.loads(out.read_text())
    assert result['flops_per_multiply_add'] == 2 and result['peak'] == 1e14
    assert result['network']['trainable'] == pytest.approx(130e6, rel=0.01)
    assert result['gpu_hours'] == pytest.approx(result['total'] / 1e14 / 0.5 / 3600)
    assert result['sample']['calls'] == 20
    held = result['memory']
    assert held['moments'] == 2 * held['gradients'] == 8 * result['network']['trainable']
    assert f'memory of each process: {held["total"] / 2**30:.1f} GiB, of which' in text and 'activations of 64 images' in text
    linear = ROOT / 'configs/vit/vit-tiny_usp-pre_1xb64-linear-coslr-30e_digits.py'
    assert 'memory of a training: estimated for pretraining and generators alone' in call(linear, '--json', out)
    unknown = call(tiny, '--cfg-options', 'optim_wrapper.optimizer.type=RAdam')
    assert 'memory of a training: cannot estimate the memory of OptimWrapper with RAdam: expected' in unknown
    assert json.loads(out.read_text())['memory'] is None
    assert 'no way to count the operations of a ImageClassifier' in call(
        ROOT / 'configs/features/resnet18-w16_1xb64-coslr-8e_digits.py'
    )
    assert 'the number of images is known only for' in call(ROOT / 'configs/usp/usp_vit-tiny_1xb64-coslr-120e_digits.py')
    assert '--utilisation 2.0 in (0, 1]' in call(tiny, '--utilisation', '2')
    assert 'it lacks train_dataloader, train_cfg, auto_scale_lr' in call(ROOT / 'configs/_base_/models/sit-xl-p1_va-f16d32.py')
    assert "unknown key 'denoizer'" in call(tiny, '--cfg-options', 'model.denoizer.arch=base')
