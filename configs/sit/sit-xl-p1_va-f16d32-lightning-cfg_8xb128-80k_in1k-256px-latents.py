"""SiT-XL/1 with LightningDiT's block on VA-VAE latents from scratch, 64 epochs of LightningDiT's recipe, sampled with guidance.

bash tools/dist_test.sh configs/sit/sit-xl-p1_va-f16d32-lightning-cfg_8xb128-80k_in1k-256px-latents.py CHECKPOINT 8  (of sit-xl-p1_va-f16d32-lightning_8xb128-80k_in1k-256px-latents)
Paper (Table 3): FID 2.15, IS 245.1.
"""

_base_ = './sit-xl-p1_va-f16d32-lightning_8xb128-80k_in1k-256px-latents.py'

# Table 3's scale and shift; the interval's start is that of LightningDiT's configuration for 64 epochs (t = 0 is noise)
model = dict(sampler=dict(timestep_shift=0.3), guidance=dict(scale=10.0, interval=(0.10, 1.0)))
