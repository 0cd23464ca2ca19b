"""mmseg's inferencer takes our configs and checkpoints as they are; test_inference.py has mmpretrain's."""

from mmengine.config import Config
from mmseg.apis import MMSegInferencer
from PIL import Image
from small_segmentation import shrink_segmentation
from small_world import ROOT, train_quickly

UPERNET = 'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'


def test_segmentation(small_world, tmp_path):
    cfg = shrink_segmentation(small_world, Config.fromfile(ROOT / UPERNET))
    train_quickly(cfg, tmp_path)
    cfg.model.backbone.init_cfg = None
    cfg.dump(tmp_path / 'config.py')
    inferencer = MMSegInferencer(str(tmp_path / 'config.py'), weights=str(tmp_path / 'iter_1.pth'), device='cpu')
    scene = sorted((small_world.digits.parents[1] / 'ade20k' / 'images' / 'validation').iterdir())[0]
    out = inferencer(str(scene), out_dir=str(tmp_path / 'out'))
    assert out['predictions'].shape == (128, 128) and out['predictions'].max() < 11
    assert Image.open(tmp_path / 'out' / 'vis' / scene.name).size == (128, 128)
