"""SiT on emoji of 128 pixels from USP weights, aligned with a USP encoder of another seed, for one GPU: an arm of the study in docs/usp-start.md.

python tools/train.py configs/sit/sit-small-p2_usp-pre_repa_1xb256-2k_emoji-128px.py \
    --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
"""

_base_ = './sit-small-p2_usp-pre_1xb256-2k_emoji-128px.py'

model = dict(
    repa=dict(
        teacher=dict(
            name='usp-emoji',
            backbone=dict(
                type='USPViT',
                arch='small',
                vae=dict(name='laptop', path='work_dirs/start-study/emoji-128px/vae'),
                encode_images=True,
                img_size=128,
                out_type='featmap',
            ),
            checkpoint='work_dirs/start-study/emoji-128px/pretrain-small-x1-seed1/epoch_200.pth',
            dim=384,
            mean=[127.5] * 3,
            std=[127.5] * 3,
        ),
        depth=6,
        hidden_dims=768,
    )
)
train_dataloader = dict(dataset=dict(images='work_dirs/start-study/emoji-128px/data/imagenet/train'))
