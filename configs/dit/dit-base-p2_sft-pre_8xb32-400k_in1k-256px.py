"""DiT-B/2 from a supervised fine-tuned encoder (Table 9).

bash tools/dist_train.sh configs/dit/dit-base-p2_sft-pre_8xb32-400k_in1k-256px.py 8 --cfg-options model.denoiser.init_cfg.checkpoint=CHECKPOINT
Paper: FID 39.35 (USP 28.26).
"""

_base_ = './dit-base-p2_usp-pre_8xb32-400k_in1k-256px.py'
