"""SiT-XL/2 from USP weights, sampled by the ODE.

bash tools/dist_test.sh configs/sit/sit-xl-p2_usp-pre_ode_8xb32-400k_in1k-256px.py CHECKPOINT 8  (of sit-xl-p2_usp-pre_8xb32-400k_in1k-256px)
From: usp_vit-xl_64xb64-amp-coslr-1600e_in1k-latents
"""

_base_ = './sit-xl-p2_usp-pre_8xb32-400k_in1k-256px.py'

model = dict(sampler=dict(_delete_=True, type='ODESampler', method='dopri5'))
