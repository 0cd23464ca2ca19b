"""The shipped configs as the benchmarks measure them: the only place that says what a mode changes in one."""

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CONFIGS = {
    'DiT': 'configs/dit/dit-base-p2_8xb32-400k_in1k-256px-latents.py',
    'SiT': 'configs/sit/sit-base-p2_8xb32-400k_in1k-256px-latents.py',
    'MAE': 'configs/usp/usp_vit-base_64xb64-amp-coslr-800e_in1k-latents.py',
    'probe': 'configs/vit/vit-base_usp-pre_64xb256-amp-linear-coslr-90e_in1k.py',
}


def model_config(
    name: str, arch: str | dict[str, int], mode: str, img_size: int | None = None, classes: int | None = None
) -> Any:
    """A config of `CONFIGS` at another size, as the mode says, without the VAE's weights.

    Args:
        mode: words, of 'fp32' or 'bf16', 'compiled' and 'checkpointed'.
        img_size, classes: the config's if None.
    """
    from mmengine.config import Config

    import usp_mm  # noqa: F401

    cfg = Config.fromfile(ROOT / CONFIGS[name])
    network = cfg.model.denoiser if 'denoiser' in cfg.model else cfg.model.backbone
    network.arch = arch
    if img_size is not None:
        network.img_size = img_size
    if classes is not None:
        (network if 'denoiser' in cfg.model else cfg.model.head).num_classes = classes
    cfg.model.data_preprocessor.load_vae = False
    set_mode(cfg, mode)
    return cfg


def set_mode(cfg: Any, mode: str) -> None:
    """Edit a config as the mode says."""
    low = 'bf16' in mode
    cfg.optim_wrapper.type = 'AutocastOptimWrapper' if low else 'OptimWrapper'
    if 'denoiser' in cfg.model:
        cfg.model.denoiser.with_cp = 'checkpointed' in mode
        cfg.model.sample_dtype = 'bfloat16' if low else 'float32'
    cfg.model.compile = 'blocks' if 'compiled' in mode else False


def build_model(cfg: Any, device: str) -> Any:
    """The config's model on the device, with its first weights."""
    model = make_model(cfg, device).to(device)
    model.init_weights()
    return model


def make_model(cfg: Any, device: str) -> Any:
    """The config's model, its parameters drawn on the device, as drawing those of XL on a CPU takes long."""
    import torch

    from usp_mm.registry import MODELS

    with torch.device(device):
        model = MODELS.build(cfg.model)
    if 'objective' in cfg.model:
        model.objective = MODELS.build(cfg.model.objective)  # whose tables are on the CPU
    return model


def flops_of(cfg: Any) -> dict[str, int]:
    """Operations of a sample, 'forward' and 'train', see `usp_mm.engine.records.flops.count_flops`; takes no memory."""
    from usp_mm.engine.records.flops import count_flops

    return count_flops(make_model(cfg, 'meta'))


def train_alone(cfg: Any) -> None:
    """Let a training neither evaluate nor save, on data of one class."""
    for name in ('val', 'test'):
        cfg[f'{name}_cfg'] = cfg[f'{name}_dataloader'] = cfg[f'{name}_evaluator'] = None
    cfg.default_hooks.checkpoint.update(interval=-1, save_last=False)
    cfg.default_hooks.class_check.allow_unseen_classes = True
