"""Generation configs at a size that trains, samples, scores and saves in a second."""

from mmengine.config import Config

from helpers.small_world import ARCH, ROOT, SmallWorld
from helpers.teacher_files import MODEL

#: The configs, relative to the project.
GENERATION = sorted(path.relative_to(ROOT) for model in ('dit', 'sit') for path in (ROOT / 'configs' / model).glob('*.py'))
IMG_SIZE, NUM_SAMPLES = 64, 6
#: Smaller than the images, so that every transfer resizes its position table.
PRETRAINED_IMG_SIZE = 48


def shrink_generation(world: SmallWorld, cfg: Config) -> Config:
    """The config with a network of two blocks and two sampling steps, for one iteration and a validation of six samples."""
    preset = world.vae_of(cfg.model.data_preprocessor.vae.name)
    _shrink_model(world, cfg.model, preset)
    _shrink_data(world, cfg, preset)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    hooks = cfg.default_hooks
    hooks.logger.interval = hooks.checkpoint.interval = hooks.visualization.interval = 1
    hooks.visualization.vis_kwargs_list.forward_kwargs.labels = [0, 1]
    return cfg


def _shrink_model(world: SmallWorld, model: Config, preset: dict) -> None:
    model.data_preprocessor.vae = preset
    denoiser = model.denoiser
    denoiser.update(arch=dict(ARCH), img_size=IMG_SIZE, num_classes=2)
    if 'init_cfg' in denoiser:
        # the pixel MAE of Table 8a is the one whose PatchConv doesn't fit
        source = preset['name'] if denoiser.init_cfg.get('load_patch_embed', True) else 'pixel'
        encoder = dict(arch=dict(ARCH), img_size=PRETRAINED_IMG_SIZE)
        encoder |= {'block': denoiser.block} if 'block' in denoiser else {}
        denoiser.init_cfg.checkpoint = world.encoder(encoder, source)
        if 'keep_layers' in denoiser.init_cfg:
            denoiser.init_cfg.keep_layers = 1
    if 'route' in denoiser:
        denoiser.route.update(start=1, end=2)
    if 'repa' in model:
        _shrink_repa(world, model.repa, preset)
    model.sampler.num_steps = 2


def _shrink_repa(world: SmallWorld, repa: Config, preset: dict) -> None:
    repa.update(depth=1, hidden_dims=16)
    if 'backbone' not in repa.teacher:
        repa.teacher.update(name=MODEL, path=world.teacher())
    else:
        backbone = repa.teacher.backbone
        backbone.arch, backbone.vae = dict(ARCH), preset
        repa.teacher.update(checkpoint=world.encoder(backbone, preset['name']), dim=ARCH['embed_dims'])


def _shrink_data(world: SmallWorld, cfg: Config, preset: dict) -> None:
    loader = cfg.train_dataloader
    loader.update(batch_size=4, num_workers=0, persistent_workers=False)
    if loader.dataset.type == 'LatentCacheDataset':
        dataset, teacher = loader.dataset, loader.dataset.get('teacher')
        dataset.data_root = world.cache(preset['name'], IMG_SIZE, dataset.flip, teacher is not None)
        if teacher is not None:
            dataset.teacher = MODEL
        if dataset.get('images') is not None:
            dataset.images = str(world.images / 'train')
    else:
        loader.dataset.update(data_root=str(world.images), serialize_data=False)
        crop = next(step for step in loader.dataset.pipeline if step.type == 'ADMCenterCrop')
        crop.size = IMG_SIZE
    # Inception's weights are not at hand: pixels are the features
    metric = dict(type='FeatureMetrics', extractor=dict(type='PixelFeatures', size=4), reference=str(world.digits))
    metric['cache_dir'] = str(world.folder)
    for name in ('val', 'test'):
        cfg[f'{name}_dataloader'].update(batch_size=4)
        if cfg[f'{name}_evaluator'].metrics.type == 'DenoisingLoss':
            cfg[f'{name}_dataloader'].dataset.data_root = world.cache(preset['name'], IMG_SIZE, False, split='val')
            continue
        cfg[f'{name}_dataloader'].dataset.update(num_samples=NUM_SAMPLES, num_classes=2)
        cfg[f'{name}_evaluator'].metrics = dict(metric)
