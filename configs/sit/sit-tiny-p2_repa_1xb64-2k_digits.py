"""SiT on handwritten digits from scratch, aligned with the demo's own USP encoder, which sees the images through the VAE.

python tools/train.py configs/sit/sit-tiny-p2_repa_1xb64-2k_digits.py  (after tools/quickstart.sh has made data and encoder)
"""

_base_ = './sit-tiny-p2_1xb64-2k_digits.py'

model = dict(
    repa=dict(
        teacher=dict(
            name='usp-digits',
            backbone=dict(
                type='USPViT',
                arch='tiny',
                vae=dict(name='tiny', path='work_dirs/quickstart/vae'),
                encode_images=True,
                img_size=64,
                out_type='featmap',
            ),
            checkpoint='work_dirs/quickstart/pretrain-seed0/epoch_120.pth',
            dim=128,
            mean=[127.5] * 3,
            std=[127.5] * 3,
        ),
        depth=2,
        hidden_dims=256,
    )
)
optim_wrapper = dict(clip_grad=dict(max_norm=1.0))
train_dataloader = dict(dataset=dict(images='work_dirs/quickstart/data/imagenet/train'))
