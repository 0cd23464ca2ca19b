# Table 3: LightningDiT's recipe (arXiv 2501.01423) on VA-VAE latents, whose statistics are those of the cache
model = dict(
    type='LatentDiffusionGenerator',
    data_preprocessor=dict(
        type='LatentDataPreprocessor',
        vae=dict(
            name='va-f16d32',
            path='pretrained/vavae-imagenet256-f16d32-dinov2.pt',
            stats='data/imagenet_latents/va-f16d32_256px/manifest.json',
        ),
        posterior='sample',
    ),
    denoiser=dict(type='SiT', arch='xl', img_size=256, num_classes=1000, class_dropout=0.1, learn_sigma=False),
    objective=dict(type='FlowObjective', path='linear', prediction='velocity', times='logit_normal', cosine_weight=1.0),
    sampler=dict(type='ODESampler', method='euler', num_steps=250),
    guidance=dict(scale=1.0, channels=3),
    ema=dict(momentum=1e-4),
)
