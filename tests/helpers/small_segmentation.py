"""Segmentation configs at a size that trains and tests in a second."""

from mmengine.config import Config

from helpers.small_world import ARCH, ROOT, SmallWorld

#: The configs, relative to the project.
SEGMENTATION = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs' / 'upernet').glob('*.py'))
SIDE = 64


def shrink_segmentation(world: SmallWorld, cfg: Config) -> Config:
    """The config with an encoder of four blocks on crops of 64 pixels of the demo's scenes, for one iteration of two images."""
    model, scenes = cfg.model, world.digits.parents[1] / 'ade20k'
    model.data_preprocessor.size = (SIDE, SIDE)
    model.backbone.update(arch=dict(ARCH, depth=4), vae=world.vae_of('tiny'), img_size=SIDE)
    # smaller than the crops, so that the position table is resized
    model.backbone.init_cfg.checkpoint = world.encoder(dict(arch=dict(ARCH, depth=4), img_size=48), 'tiny')
    model.decode_head.num_classes, model.auxiliary_head.channels = 11, 8
    model.norm_cfg = dict(type='BN')
    if model.test_cfg.mode == 'slide':
        model.test_cfg.update(crop_size=(SIDE, SIDE), stride=(48, 48))
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(type='DemoScenes', data_root=str(scenes))
        for step in loader.dataset.pipeline:
            if step.type in ('Resize', 'RandomResize'):
                step.scale = (256, SIDE)
            if step.type == 'RandomCrop':
                step.crop_size = (SIDE, SIDE)
    cfg.train_cfg.update(max_iters=1, val_interval=1)
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
    cfg.default_hooks.logger.interval = cfg.default_hooks.checkpoint.interval = 1
    return cfg
