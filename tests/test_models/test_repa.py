"""REPA: the official numbers, the teacher that is nowhere, and what is refused."""

import copy
import json
import shutil

import pytest
import timm
import torch
from helpers.golden import load, official_weights
from helpers.teacher_files import DIM, MODEL, teacher_folder
from mmengine.optim import OptimWrapper
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import load_file, save_file

from usp_mm.datasets import EpochIndex
from usp_mm.models.repa import build_teacher
from usp_mm.models.repa.projectors import ConvProjector, spatial_norm

ARCH = dict(embed_dims=32, depth=2, num_heads=2)
KINDS = dict(sit=('SiT', 'FlowObjective', 'SDESampler'), dit=('DiT', 'DDPMObjective', 'AncestralSampler'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return teacher_folder(tmp_path_factory.mktemp('teacher') / MODEL)


@pytest.fixture
def build(tiny_vae_folder, folder):
    def build(kind='sit', seed=0, **repa):
        denoiser, objective, sampler = KINDS[kind]
        torch.manual_seed(seed)
        teacher = dict(name=MODEL, path=str(folder))
        model = MODELS.build(
            dict(
                type='LatentDiffusionGenerator',
                data_preprocessor=dict(vae=dict(name='tiny', path=str(tiny_vae_folder))),
                denoiser=dict(type=denoiser, arch=ARCH, img_size=64, num_classes=10),
                objective=dict(type=objective),
                sampler=dict(type=sampler, num_steps=3),
                ema=dict(momentum=0.25),
                repa=None if repa.get('teacher', '') is None else dict(dict(teacher=teacher, depth=1, hidden_dims=48), **repa),
            )
        )
        model.init_weights()
        return model

    return build


def image_batch(num=4, seed=0, size=64):
    """What a loader of images gives: BGR."""
    images = torch.randint(0, 256, (num, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    samples = []
    for i in range(num):
        sample = DataSample().set_gt_label(i % 10)
        sample.set_field(EpochIndex(i, 2, 5), 'sample_idx', field_type='metainfo')
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def step(model, batch, optim_wrapper):
    """One of MMEngine's, and what it logs."""
    return {name: value.item() for name, value in model.train().train_step(copy.deepcopy(batch), optim_wrapper).items()}


# ------------------------------------------------------------------ the official numbers


def test_the_official_numbers():
    golden = {name: torch.from_numpy(value) for name, value in load('repa').items()}
    teacher = dict(name='resnet', backbone=dict(type='mmpretrain.ResNet', depth=18), checkpoint='unused.pth', dim=24)
    model = MODELS.build(
        dict(
            type='LatentDiffusionGenerator',
            data_preprocessor=dict(vae='sd-f8d4', load_vae=False),
            denoiser=dict(
                type='SiT', arch=dict(embed_dims=48, depth=2, num_heads=3), img_size=64, num_classes=10, learn_sigma=False,
                norm_affine=False,
            ),
            objective=dict(type='FlowObjective', time_convention='noise_at_1'),
            sampler=dict(type='ODESampler', method='euler', num_steps=4),
            repa=dict(teacher=teacher, depth=1, hidden_dims=40),
        )
    ).eval()  # fmt: skip
    denoiser, repa = model.denoiser, model.repa
    official = official_weights('repa')
    projector = {name: value for name, value in official.items() if name.startswith('projectors.0.')}
    denoiser.load_state_dict({name: value for name, value in official.items() if name not in projector})
    repa.projector.load_state_dict({name.removeprefix('projectors.0.'): value for name, value in projector.items()})
    x, t, y, noise = (golden[name] for name in ('x', 't', 'y', 'noise'))

    def close(found, name):
        torch.testing.assert_close(found, golden[name], rtol=0, atol=1e-5)

    with torch.no_grad():
        out, hidden = denoiser(x, t, y, return_hidden=[1])
        close(out, 'out')
        close(repa.projector(hidden[1]), 'projected')
        parts = model._aligned_losses(repa, x, 1 - t, y, noise, golden['teacher'])
        close(parts['flow'], 'denoising_loss')
        close(parts['repa'].mean(), 'projection_loss')
        torch.testing.assert_close(parts['loss'], parts['flow'] + 0.5 * parts['repa'])

        model._sync_ema()
        states, label = [], torch.tensor([3, 7])
        found = model.sample_latents([5, 6], label, on_step=lambda k, state: states.append(state.clone()))
        state = states[0]
        for time in (2 / 3, 1 / 3):  # REPA's sampler goes from the noise at t = 1 to t = 0
            state = state - denoiser(state, torch.full((2,), time), label) / 3
        torch.testing.assert_close(found, state, rtol=0, atol=1e-5)


# ------------------------------------------------------------------ training


@pytest.mark.parametrize('kind', sorted(KINDS))
def test_the_projection_loss_falls_and_is_logged(build, kind):
    model, batch = build(kind), image_batch()
    optim_wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=3e-3))
    logged = [step(model, batch, optim_wrapper) for _ in range(25)]
    assert set(logged[0]) == {'loss', 'repa', *(['flow'] if kind == 'sit' else ['mse', 'vb'])}
    assert -0.3 < logged[0]['repa'] < 0.3 and logged[-1]['repa'] < logged[0]['repa'] - 0.3
    other = 'flow' if kind == 'sit' else 'mse'
    total = logged[0][other] + logged[0].get('vb', 0) + 0.5 * logged[0]['repa']
    assert logged[0]['loss'] == pytest.approx(total, rel=1e-5)


def test_the_teacher_is_nowhere(build):
    model, plain = build(), build(teacher=None)
    step(model, image_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    model.update_ema()
    assert model.repa.teacher.loaded
    state = model.state_dict()
    projector = {f'repa.projector.{k}.{name}' for k in (0, 2, 4) for name in ('weight', 'bias')}
    assert set(state) - set(plain.state_dict()) == projector == {name for name in state if name.startswith('repa')}
    assert {name for name, _ in model.named_parameters()} - {name for name, _ in plain.named_parameters()} == projector
    assert not any(parameter.requires_grad for parameter in model.repa.teacher.network.parameters())
    random_state, other = torch.get_rng_state(), build(seed=1)
    torch.set_rng_state(random_state)
    other.repa.prepare('cpu')
    assert other.repa.teacher.loaded and torch.equal(torch.get_rng_state(), random_state)
    model.train()
    assert not any(module.training for module in model.repa.teacher.network.modules())
    assert copy.deepcopy(model).repa.teacher is model.repa.teacher
    assert {name.split('.')[0] for name, _ in model.denoiser_ema.module.named_parameters()} == {
        name.split('.')[0] for name, _ in model.denoiser.named_parameters()
    }


def test_the_denoiser_starts_as_without_repa(build):
    model, plain = build(seed=3), build(seed=3, teacher=None)
    assert all(torch.equal(value, model.denoiser.state_dict()[name]) for name, value in plain.denoiser.state_dict().items())
    bound = (6 / (32 + 48)) ** 0.5  # xavier-uniform, zero biases
    weight = model.repa.projector[0].weight
    assert 0.9 * bound < weight.abs().max() <= bound and not model.repa.projector[0].bias.any()


def test_a_resumed_run_goes_on_to_the_bit(build):
    batch = image_batch()

    def run(model, optimizer, steps):
        for _ in range(steps):
            step(model, batch, OptimWrapper(optimizer))
        return model, optimizer

    whole, _ = run(*(lambda m: (m, torch.optim.AdamW(m.parameters(), lr=1e-3)))(build()), 4)
    half, optimizer = run(*(lambda m: (m, torch.optim.AdamW(m.parameters(), lr=1e-3)))(build()), 2)
    resumed = build(seed=9)
    resumed.load_state_dict(half.state_dict(), strict=True)
    again = torch.optim.AdamW(resumed.parameters(), lr=1e-3)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, again, 2)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_autocast_leaves_the_teacher_and_the_loss_in_float32(build):
    model, batch = build(), image_batch()
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    exact, loss = model.repa.targets(data['images'], None), model.loss(**data)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(model.repa.targets(data['images'], None), exact)
        rough = model.loss(**data)
    assert rough['repa'].dtype == rough['loss'].dtype == torch.float32 and not torch.equal(rough['repa'], loss['repa'])
    torch.testing.assert_close(rough['repa'], loss['repa'], rtol=0, atol=0.02)


def test_recomputing_activations_gives_the_same_loss(build):
    model, batch = build(), image_batch()
    plain = model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))['loss']
    model.denoiser.with_cp = True
    torch.testing.assert_close(model.loss(**model.data_preprocessor(copy.deepcopy(batch), True))['loss'], plain)


# ------------------------------------------------------------------ the teacher


def by_hand(folder, images, size):
    """timm's own way from RGB images in [0, 255] to normalised patch tokens."""
    network = timm.create_model(MODEL, img_size=size).eval()
    weights = load_file(folder / 'model.safetensors')
    table, side = weights['pos_embed'], size // 16
    weights['pos_embed'] = timm.layers.resample_abs_pos_embed(table, (side, side), num_prefix_tokens=1)
    network.load_state_dict(weights)
    pixels = torch.nn.functional.interpolate((images / 255 - 0.5) / 0.5, (size, size), mode='bicubic')
    with torch.no_grad():
        return network.forward_features(pixels)[:, 1:]


@pytest.mark.parametrize('size', [64, 96])
def test_tokens_are_those_of_the_rgb_image(build, folder, size):
    model = build(teacher=dict(name=MODEL, path=str(folder / 'model.safetensors'), size=size), resize='bilinear')
    batch = image_batch()
    images = model.data_preprocessor(batch, True)['images']
    rgb = batch['inputs'].flip(1)
    assert torch.equal(images, rgb)
    tokens = model.repa.teacher.tokens(images)
    assert tokens.shape == (4, (size // 16) ** 2, DIM)
    torch.testing.assert_close(tokens, by_hand(folder, rgb.float(), size), rtol=1e-4, atol=1e-4)
    assert model.repa.targets(images, None).shape == (4, 16, DIM)
    torch.testing.assert_close(torch.cat([model.repa.teacher.tokens(x) for x in images.split(1)]), tokens, rtol=0, atol=1e-4)


def test_dinov2_sees_224_pixels_of_256():
    teacher = build_teacher('dinov2-b', 256)
    assert (teacher.size, teacher.grid, teacher.dim, teacher.loaded) == (224, (16, 16), 768, False)
    large = build_teacher(dict(name='vit_large_patch14_dinov2.lvd142m'), 512)
    assert (large.size, large.grid, large.dim) == (448, (32, 32), 1024)


def test_maps_and_registered_backbones(tmp_path):
    cfg = dict(type='mmpretrain.ResNet', depth=18, stem_channels=8, base_channels=8, out_indices=(2,))
    network = MODELS.build(cfg)
    network.eval()
    weights = {f'backbone.{name}': value for name, value in network.state_dict().items()}
    torch.save(dict(state_dict={**weights, 'head.weight': torch.zeros(1)}), tmp_path / 'classifier.pth')
    given = dict(
        name='digits', backbone=cfg, checkpoint=str(tmp_path / 'classifier.pth'), dim=32, mean=[127.5] * 3, std=[127.5] * 3
    )
    teacher, images = build_teacher(given, 64), image_batch()['inputs']
    with torch.no_grad():
        expected = network((images.float() - 127.5) / 127.5)[0].flatten(2).transpose(1, 2)
    torch.testing.assert_close(teacher.tokens(images), expected)
    assert teacher.grid == (4, 4)
    with pytest.raises(ValueError, match=r"digits' gave \[1, 16, 32\] for 1 images: expected .* of width 33"):
        build_teacher({**given, 'dim': 33}, 64).probe()
    with pytest.raises(ValueError, match=r"has no weights 'neck\.…' for the teacher"):
        build_teacher({**given, 'prefix': 'neck.'}, 64).probe()
    with pytest.raises(ValueError, match=r"does not fit the teacher's mmpretrain\.ResNet"):
        build_teacher({**given, 'backbone': {**cfg, 'base_channels': 16}}, 64).probe()
    square = build_teacher(dict(name='xcit_nano_12_p16_224', path='unused'), 64)  # whose patch size is one number
    assert (square.size, square.grid, square.dim) == (64, (4, 4), 128)
    convolutional = build_teacher(dict(name='test_resnet', path='unused'), 64)
    assert (convolutional.size, convolutional.grid, convolutional.dim) == (64, None, 96)


# ------------------------------------------------------------------ variants


def test_convolutional_projector_sees_the_neighbours_alone(build):
    model = build(projector='conv', hidden_dims=None)
    assert {name for name in model.state_dict() if name.startswith('repa')} == {'repa.projector.weight', 'repa.projector.bias'}
    projector, x = ConvProjector(3, 5, (4, 4), 0), torch.randn(1, 16, 3)
    changed = x.clone()
    changed[0, 5] += 1  # row 1, column 1
    moved = (projector(changed) - projector(x)).abs().sum((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    logged = step(model, image_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    assert -1 <= logged['repa'] <= 1


def test_spatial_normalisation(build):
    tokens = torch.randn(2, 16, 6) * 3 + 5
    found = spatial_norm(tokens, 1.0)
    torch.testing.assert_close(found.mean(1), torch.zeros(2, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.std(1), torch.ones(2, 6), rtol=1e-5, atol=0)
    torch.testing.assert_close(spatial_norm(tokens, 0.0), tokens / tokens.std(1, keepdim=True), rtol=1e-5, atol=0)
    model = build(spatial_norm=1.0)
    images = image_batch()['inputs']
    expected = spatial_norm(model.repa.teacher.tokens(images), 1.0)
    assert torch.equal(model.repa.targets(images, None), expected)


# ------------------------------------------------------------------ sampling, and what is refused


def test_sampling_needs_neither_teacher_nor_projector(build, tmp_path):
    teacher = teacher_folder(tmp_path / 'teacher')
    model = build(teacher=dict(name=MODEL, path=str(teacher)))
    step(model, image_batch(), OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1)))
    shutil.rmtree(teacher)
    later = build(seed=5, teacher=dict(name=MODEL, path=str(teacher)))
    later.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(later.sample([1, 2], [3, 4]), model.sample([1, 2], [3, 4]))
    assert later.val_step(dict(inputs=dict(num_batches=1)))[0].fake_img.shape == (3, 64, 64)
    assert not later.repa.teacher.loaded


@pytest.mark.parametrize(
    ('repa', 'message'),
    [
        (dict(teacher='dinov2_b'), r"unknown teacher 'dinov2_b': expected one of \['dinov2-b', .*did you mean 'dinov2-b'"),
        (dict(teacher=dict(nam='dinov2-b')), r"unknown key 'nam' in repa\.teacher: .*did you mean 'name'"),
        (dict(teacher=dict(path='x')), r'needs name \(one of'),
        (dict(teacher=dict(backbone=dict(type='ResNet'), checkpoint='x')), 'with a backbone needs name and dim'),
        (dict(teacher=dict(name='dinov2-b', size=225)), 'patches of 14 pixels, which do not divide its image size 225: .* 224'),
        (dict(teacher=dict(name='dinov2-b', size=70)), 'sees 5x5 tokens .images at 70 pixels., the denoiser 4x4: set repa'),
        (dict(teacher=dict(name='dinov2-b', dtype='float8')), "unknown dtype of the teacher 'float8'"),
        (dict(depth=3), r'repa\.depth=3 is not a block of the denoiser: it has 1 to 2'),
        (dict(weight=-1.0), r'repa\.weight=-1\.0 must be 0 or more'),
        (dict(projector='conv', hidden_dims=8), r"repa\.hidden_dims=8 is of projector='mlp'"),
        (dict(hidden_dims=0), r'repa\.hidden_dims=0 must be at least 1'),
        (dict(projector='conf'), "unknown repa.projector 'conf'.*did you mean 'conv'"),
        (dict(resize='bilinea'), "did you mean 'bilinear'"),
    ],
)
def test_settings_that_are_refused(build, repa, message):
    with pytest.raises(ValueError, match=message):
        build(**repa)


def test_weights_that_are_not_the_teachers(folder, tmp_path):
    def teacher(path, name=MODEL):
        return build_teacher(dict(name=name, path=str(path)), 64)

    with pytest.raises(FileNotFoundError, match=r'none\.safetensors is not a file'):
        teacher(tmp_path / 'none.safetensors').probe()
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match=r"empty' holds no model\.safetensors of teacher 'test_vit'"):
        teacher(tmp_path / 'empty').probe()
    with pytest.raises(ValueError, match="holds timm's 'test_vit', the teacher is 'test_vit2'"):
        teacher(folder, 'test_vit2').probe()
    weights = load_file(folder / 'model.safetensors')
    del weights['blocks.0.norm1.weight']
    save_file(weights, tmp_path / 'part.safetensors')
    with pytest.raises(ValueError, match=r"part\.safetensors' does not fit teacher 'test_vit': .*blocks\.0\.norm1\.weight"):
        teacher(tmp_path / 'part.safetensors').probe()


def test_a_folder_tells_how_its_model_saw_images(tmp_path):
    folder = teacher_folder(tmp_path / MODEL)
    config = dict(architecture=MODEL, pretrained_cfg=dict(mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]))
    (folder / 'config.json').write_text(json.dumps(config))
    teacher = build_teacher(dict(name=MODEL, path=str(folder)), 64)
    teacher.probe()
    assert teacher.mean == pytest.approx([25.5, 51, 76.5]) and teacher.std == pytest.approx([127.5, 153, 178.5])


def test_a_batch_in_lists_is_stacked(build):
    """As MMEngine's own collate function, `pseudo_collate`, leaves it."""
    model, batch = build(), image_batch()
    moments, images = torch.randn(4, 8, 8, 8), batch['inputs'].flip(1)
    for key, value in (('images', images), ('teacher_tokens', model.repa.teacher.tokens(images))):
        losses = [
            model.loss(
                **model.data_preprocessor({'inputs': kind(moments), key: kind(value), 'data_samples': batch['data_samples']})
            )
            for kind in (torch.clone, list)
        ]
        assert losses[0]['repa'] == losses[1]['repa']
    with pytest.raises(ValueError, match='images of one batch differ in shape'):
        model.data_preprocessor(dict(inputs=moments, images=[images[0], images[1, :, :32]], data_samples=[]))


def test_training_without_images_is_refused(build):
    model, batch = build(), image_batch()
    with pytest.raises(ValueError, match=r"model\.repa needs images or the teacher's tokens beside the latents"):
        model.loss(torch.zeros(4, 4, 8, 8), batch['data_samples'])
    with pytest.raises(ValueError, match="the tokens have width 7, teacher 'test_vit' has 64"):
        model.loss(torch.zeros(4, 4, 8, 8), batch['data_samples'], teacher_tokens=torch.zeros(4, 16, 7))
    with pytest.raises(ValueError, match=r'sees 3x3 tokens .* the denoiser 4x4'):
        model.loss(torch.zeros(4, 4, 8, 8), batch['data_samples'], teacher_tokens=torch.zeros(4, 9, 64))
    with pytest.raises(ValueError, match=r"images for teacher 'test_vit' are \(4, 3, 32, 32\), expected \[N, 3, 64, 64\]"):
        model.repa.teacher.tokens(image_batch(size=32)['inputs'])
