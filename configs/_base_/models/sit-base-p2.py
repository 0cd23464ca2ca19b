model = dict(
    type='LatentDiffusionGenerator',
    data_preprocessor=dict(type='LatentDataPreprocessor', vae=dict(name='sd-f8d4', path=None), posterior='sample'),
    denoiser=dict(type='SiT', arch='base', img_size=256, num_classes=1000, class_dropout=0.1),
    objective=dict(type='FlowObjective', path='linear', prediction='velocity'),
    sampler=dict(type='SDESampler', method='euler', num_steps=250, diffusion='sigma', last_step='mean', last_step_size=0.04),
    guidance=dict(scale=1.0, channels=3),
    ema=dict(momentum=1e-4),
)
