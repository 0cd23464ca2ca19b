"""UPerNet on USP ViT-B with MAE's layer-wise decay of the learning rate, which the paper does not name.

bash tools/dist_train.sh configs/upernet/upernet_vit-base_usp-pre_layerdecay065_8xb2-amp-160k_ade20k-512x512.py 8 --cfg-options model.backbone.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py'

optim_wrapper = dict(
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor', paramwise_cfg=dict(layer_decay_rate=0.65)
)
