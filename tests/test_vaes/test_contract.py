"""What every codec promises."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.vae_files import GOLDEN_KL16, SMALL_VAVAE, kl_weights, save, small_taesd
from torch import Tensor, nn

from usp_mm.presets import VAES
from usp_mm.vaes import LatentCodec, build_codec
from usp_mm.vaes.base import _memory_format
from usp_mm.vaes.laptop import make_laptop_vae
from usp_mm.vaes.tiny import make_tiny_vae, save_vae

PRESETS = ['tiny', 'laptop', 'sd-f8d4', 'taesd', 'kl-f16d16', 'va-f16d32', 'pixel']
Build = Callable[..., LatentCodec]


@pytest.fixture(scope='session')
def paths(tmp_path_factory: pytest.TempPathFactory, tiny_vae_folder: Path) -> dict[str, Path | None]:
    root = tmp_path_factory.mktemp('codecs')
    save_vae(make_tiny_vae(scaling_factor=0.18215), root / 'sd')
    save_vae(make_laptop_vae(), root / 'laptop')
    save_vae(small_taesd(), root / 'taesd')
    return {
        'tiny': tiny_vae_folder,
        'laptop': root / 'laptop',
        'sd-f8d4': root / 'sd',
        'taesd': root / 'taesd',
        'kl-f16d16': save(kl_weights(GOLDEN_KL16), root / 'kl16.ckpt'),
        'va-f16d32': save(kl_weights(SMALL_VAVAE), root / 'vavae.pt'),
        'pixel': None,
    }


@pytest.fixture(params=PRESETS)
def build(request: pytest.FixtureRequest, paths: dict[str, Path | None]) -> Build:
    """Builds the codec under test, with keyword arguments of `build_codec`."""
    name = request.param
    stats = dict(latent_mean=[0.1 * i for i in range(32)], latent_std=[0.5 + 0.1 * i for i in range(32)])

    def builder(**kwargs: object) -> LatentCodec:
        return build_codec(name, path=paths[name], stats=stats if name == 'va-f16d32' else None, **kwargs)

    return builder


def images(num: int = 2, height: int = 32, width: int = 48) -> Tensor:
    return torch.rand(num, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def affine(codec: LatentCodec) -> tuple[Tensor, Tensor]:
    """Scale and shift as [C, 1, 1]."""
    ones = torch.ones(codec.channels, 1, 1)
    return ones * codec.scale, ones * codec.shift


@pytest.mark.parametrize(('device', 'dtype', 'expected'), [
    ('cuda', torch.bfloat16, torch.channels_last), ('cuda', torch.float16, torch.channels_last),
    ('cuda', torch.float32, torch.preserve_format), ('cpu', torch.bfloat16, torch.preserve_format),
])  # fmt: skip
def test_only_halves_on_a_gpu_have_channels_last(device: str, dtype: torch.dtype, expected: torch.memory_format) -> None:
    assert _memory_format(torch.device(device), dtype) == expected


def test_channels_last_changes_no_more_than_rounding(build: Build) -> None:
    codec = build()
    before, latents = codec.encode(images()), torch.randn(2, codec.channels, 32 // codec.stride, 48 // codec.stride)
    decoded = codec.decode(latents)
    codec.network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(codec.encode(images()), before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(codec.decode(latents), decoded, rtol=1e-4, atol=1e-4)


def test_shapes_follow_from_the_preset(build: Build) -> None:
    codec = build()
    row = VAES[codec.name]
    assert (codec.channels, codec.stride, codec.patch_size) == (row['channels'], row['stride'], row['patch_size'])
    moments = codec.encode(images())
    latent = (2, row['channels'], 32 // row['stride'], 48 // row['stride'])
    assert moments.shape == (2, codec.moment_channels, *latent[2:])
    assert codec.moment_channels == (3 if codec.name == 'pixel' else 2 * row['channels'])
    assert codec.mode(moments).shape == latent
    assert codec.sample(moments, torch.zeros(latent)).shape == latent
    assert codec.decode(torch.zeros(latent)).shape == (2, 3, 32, 48)


def test_latents_are_shifted_and_scaled_once(build: Build) -> None:
    codec = build()
    moments = codec.encode(images())
    mean, scale, shift = moments[:, : codec.channels], *affine(codec)
    torch.testing.assert_close(codec.mode(moments), (mean - shift) * scale, rtol=0, atol=1e-6)
    torch.testing.assert_close(codec.decode(codec.mode(moments)), codec.network_decode(mean), rtol=1e-4, atol=1e-5)


def test_sample_adds_the_given_noise_times_the_clamped_deviation(build: Build) -> None:
    codec = build()
    mean = torch.randn(3, codec.channels, 2, 2)
    noise = torch.randn_like(mean)
    if codec.name == 'pixel':
        assert torch.equal(codec.sample(mean, noise), mean)
        return
    logvar = torch.tensor([-50.0, 0.7, 30.0]).view(3, 1, 1, 1).expand_as(mean)
    std = torch.tensor([-30.0, 0.7, 20.0]).div(2).exp().view(3, 1, 1, 1)
    scale, shift = affine(codec)
    sample = codec.sample(torch.cat([mean, logvar], 1), noise)
    torch.testing.assert_close(sample, (mean + std * noise - shift) * scale)
    with pytest.raises(ValueError, match=r'noise is \(3, 1, 2, 2\), but the posterior is'):
        codec.sample(torch.cat([mean, logvar], 1), noise[:, :1])


def test_frozen(build: Build) -> None:
    codec = build()
    holder = nn.Module()
    holder.codec = codec
    holder.train()
    assert not holder.state_dict()
    assert not list(holder.parameters())
    assert codec.network is not None
    assert not codec.network.training
    assert not any(parameter.requires_grad for parameter in codec.network.parameters())
    assert not codec.encode(images().requires_grad_()).requires_grad
    assert copy.deepcopy(holder).codec is codec


def test_float32_whatever_surrounds_it(build: Build) -> None:
    codec = build()
    moments = codec.encode(images())
    latents = codec.mode(moments)
    decoded = codec.decode(latents)
    with torch.autocast('cpu', torch.bfloat16):
        inside = codec.encode(images().bfloat16().float()), codec.mode(moments), codec.decode(latents)
    expected = codec.encode(images().bfloat16().float()), latents, decoded
    for got, want in zip(inside, expected, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got, want)


def test_half_precision_network_gives_float32_near_the_full_one(build: Build) -> None:
    full, half = build(), build(dtype='bfloat16')
    assert half.dtype == torch.bfloat16
    assert half.weight_hash == full.weight_hash
    moments = half.encode(images())
    assert moments.dtype == half.mode(moments).dtype == torch.float32
    reference = full.encode(images())
    error = (moments - reference).norm() / reference.norm()
    assert 1e-5 < error < 0.05
    assert half.decode(half.mode(moments)).dtype == torch.float32


def test_chunks_are_separate_calls_in_order(build: Build) -> None:
    """Bit for bit; against one whole call a convolution rounds differently, since that depends on its batch."""
    whole, chunked, batch = build(), build(encode_batch_size=2), images(5, 32, 32)
    moments = chunked.encode(batch)
    assert torch.equal(moments, torch.cat([whole.encode(chunk) for chunk in batch.split(2)]))
    latents = whole.mode(moments)
    assert torch.equal(chunked.decode(latents), torch.cat([whole.decode(chunk) for chunk in latents.split(2)]))


def test_wrong_inputs_are_named(build: Build) -> None:
    codec = build()
    with pytest.raises(ValueError, match=r'images are \(2, 4, 32, 32\).*encodes \[N, 3, H, W\]'):
        codec.encode(torch.zeros(2, 4, 32, 32))
    with pytest.raises(ValueError, match=r'torch.uint8.*floats in \[-1, 1\]'):
        codec.encode(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r'latents are \(1, 5, 2, 2\)'):
        codec.decode(torch.zeros(1, 5, 2, 2))
    with pytest.raises(ValueError, match=r'\(1, 7, 2, 2\)'):
        codec.mode(torch.zeros(1, 7, 2, 2))


@pytest.mark.parametrize(('height', 'width', 'message'), [(38, 32, '38 pixels high'), (32, 98, '98 pixels wide')])
def test_a_side_the_stride_does_not_divide(build: Build, height: int, width: int, message: str) -> None:
    codec = build()
    if codec.stride == 1:
        assert codec.encode(images(1, height, width)).shape[2:] == (height, width)
        return
    side = int(message.split()[0])
    below = side // codec.stride * codec.stride
    with pytest.raises(ValueError, match=f'{message}.*stride {codec.stride}: use {below} or {below + codec.stride}'):
        codec.encode(images(1, height, width))


def test_moving_is_lazy_and_carries_statistics(build: Build) -> None:
    codec = build()
    assert codec.to('cpu') is codec
    assert codec.to('meta').device == torch.device('meta')
    assert all(tensor.is_meta for tensor in codec.network.state_dict().values())
    if isinstance(codec.scale, Tensor):
        assert codec.scale.is_meta
        assert codec.shift.is_meta


def test_without_weights_latents_still_scale(build: Build, request: pytest.FixtureRequest) -> None:
    codec, bare = build(), build(load_weights=False)
    moments = codec.encode(images())
    assert torch.equal(bare.mode(moments), codec.mode(moments))
    if codec.name != 'pixel':
        with pytest.raises(ValueError, match=f"'{codec.name}' was built without weights"):
            bare.encode(images())


def test_channels_last_is_asked_for_on_a_cpu_and_changes_rounding_alone(build: Build) -> None:
    plain, other = build(), build(channels_last=True)
    weights = [p for p in other.network.parameters() if p.ndim == 4 and min(p.shape[1:3]) > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert plain.weight_hash == other.weight_hash
    expected, moments = plain.encode(images()), other.encode(images())
    assert moments.is_contiguous()
    torch.testing.assert_close(moments, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    latents = plain.mode(expected)
    decoded = plain.decode(latents)
    torch.testing.assert_close(other.decode(latents), decoded, rtol=0, atol=1e-4 * float(decoded.abs().max()))


@pytest.mark.parametrize(
    ('device', 'dtype', 'asked', 'laid'),
    [
        ('cpu', torch.bfloat16, None, False),
        ('cuda', torch.float32, None, False),
        ('cuda', torch.bfloat16, None, True),
        ('cuda', torch.float16, False, False),
        ('cpu', torch.float32, True, True),
    ],
)
def test_where_images_lie_channels_last(device: str, dtype: torch.dtype, asked: bool | None, laid: bool) -> None:
    codec = LatentCodec(None, name='x', channels=4, stride=8, patch_size=2, scale=1.0, dtype=dtype, channels_last=asked)
    codec.device = torch.device('meta')
    codec.to(device)
    assert codec._layout is (torch.channels_last if laid else torch.preserve_format)


def test_compiled_calls_are_the_network_s(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and run by PyTorch, without the minute that its C++ compiler takes."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    original = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda function: original(function, backend=backend))
    torch._dynamo.reset()
    plain, codec = build(), build(compile=True)
    assert codec.compiled and codec.compile() is codec and not plain.compiled
    latents = plain.mode(plain.encode(images()))
    assert torch.equal(codec.network_encode(images()), plain.network_encode(images())) and not graphs
    torch.testing.assert_close(codec.encode(images()), plain.encode(images()), rtol=0, atol=1e-4)
    torch.testing.assert_close(codec.decode(latents), plain.decode(latents), rtol=0, atol=1e-4)
    assert bool(graphs) == (codec.name != 'pixel')


def test_channels_tell_what_a_batch_holds(build: Build) -> None:
    codec = build()
    kinds = ['image'] * 3 if codec.name == 'pixel' else ['image', 'moments', 'latents']
    found = [codec.kind_of(torch.zeros(1, num, 4, 4)) for num in (3, codec.moment_channels, codec.channels)]
    assert found == kinds
    with pytest.raises(ValueError, match=rf"inputs have 7 channels, but VAE '{codec.name}' takes images \(3\), moments"):
        codec.kind_of(torch.zeros(1, 7, 4, 4))
