"""USP ViT-XL on VA-VAE latents at 256x256, 800 epochs, cached latents, flip only.

bash tools/dist_train.sh configs/usp/usp_vit-xl_va-f16d32_64xb64-amp-coslr-800e_in1k-256px-latents.py 8  (on 8 nodes)
"""

_base_ = './usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py'

model = dict(
    data_preprocessor=dict(
        vae=dict(
            name='va-f16d32',
            path='pretrained/vavae-imagenet256-f16d32-dinov2.pt',
            stats='data/imagenet_latents/va-f16d32_256px/manifest.json',
        ),
    ),
    backbone=dict(arch='xl', img_size=256),
)
train_dataloader = dict(dataset=dict(data_root='data/imagenet_latents/va-f16d32_256px'))
