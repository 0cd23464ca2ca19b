"""SiT-XL/1 from USP weights on VA-VAE latents, in SiT's recipe (Table 3's numbers are of LightningDiT's).

bash tools/dist_train.sh configs/sit/sit-xl-p1_usp-pre_va-f16d32_8xb32-400k_in1k-256px-latents.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
From: usp_vit-xl_va-f16d32_64xb64-amp-coslr-1600e_in1k-256px-latents
"""

_base_ = './sit-xl-p2_usp-pre_8xb32-400k_in1k-256px-latents.py'

model = dict(
    data_preprocessor=dict(
        vae=dict(
            name='va-f16d32',
            path='pretrained/vavae-imagenet256-f16d32-dinov2.pt',
            stats='data/imagenet_latents/va-f16d32_256px/manifest.json',
        ),
    )
)
train_dataloader = dict(dataset=dict(data_root='data/imagenet_latents/va-f16d32_256px'))
