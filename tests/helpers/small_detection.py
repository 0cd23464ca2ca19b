"""Detection configs at a size that trains and tests in a second."""

from pathlib import Path

from mmengine.config import Config

from helpers.small_world import ARCH, ROOT, SmallWorld

#: The configs, relative to the project.
DETECTION = sorted(path.relative_to(ROOT) for path in (ROOT / 'configs' / 'mask_rcnn').glob('*.py'))
SIDE = 64


def shrink_detection(world: SmallWorld, cfg: Config, scenes: Path, iterations: int = 1) -> Config:
    """The config with an encoder of two blocks on scenes of 64 pixels, for a few iterations of two images."""
    model = cfg.model
    vae = world.vae_of('pixel' if model.backbone.vae.name == 'pixel' else 'tiny')
    model.data_preprocessor.pad_size_divisor = SIDE
    model.backbone.update(arch=dict(ARCH), vae=vae, img_size=SIDE)
    # smaller than the scenes, so that the position table is resized
    model.backbone.init_cfg.checkpoint = world.encoder(dict(arch=dict(ARCH), img_size=48), vae['name'])
    model.roi_head.bbox_head.update(num_classes=8, fc_out_channels=32)
    model.roi_head.mask_head.num_classes = 8
    model.train_cfg.rpn_proposal.update(nms_pre=50, max_per_img=20)
    model.train_cfg.rcnn.sampler.num = 16
    model.test_cfg.rcnn.score_thr = 0.0  # so that an untrained model has boxes and masks
    model.test_cfg.rpn.update(nms_pre=50, max_per_img=20)
    for name in ('train', 'val', 'test'):
        loader = cfg[f'{name}_dataloader']
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.update(type='DemoEmojiScenes', data_root=str(scenes))
        for step in loader.dataset.pipeline:
            if step.type in ('Resize', 'RandomResize'):
                step.scale = (SIDE, SIDE)
            if step.type == 'RandomCrop':
                step.crop_size = (SIDE, SIDE)
    cfg.val_evaluator.ann_file = cfg.test_evaluator.ann_file = str(scenes / 'annotations' / 'instances_val2017.json')
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    cfg.param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]
    cfg.default_hooks.logger.interval = 1
    cfg.default_hooks.checkpoint.interval = iterations
    return cfg
