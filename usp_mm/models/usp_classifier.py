"""Classification on latents: fine-tuning and linear probing (USP section 3.3.1)."""

import torch
from mmpretrain.models import ImageClassifier, RandomBatchAugment
from mmpretrain.structures import DataSample
from torch import Tensor

from usp_mm.registry import MODELS

from .compiling import Compiling, compile_arguments
from .data_preprocessor import preprocessor_config
from .geometry import resolve_arch, share_vae, vae_into_backbone


@MODELS.register_module()
class USPClassifier(ImageClassifier):
    """mmpretrain's ImageClassifier with shapes that follow from `data_preprocessor.vae` and `backbone.arch`.

    `neck.input_features` (of the BatchNorm neck in linear probing) and `head.in_channels` default to the encoder's width. With
    `backbone.train_vae`, the VAE that the data preprocessor names moves into the backbone, and the data preprocessor only
    normalises images. Its `batch_augments` with `mix_space='latent'` are then applied here, to the latents of the trained VAE.

    Args:
        compile: False, 'blocks', or a dict of arguments of torch.compile, see `Compiling`.
        tf32: Whether float32 may round to TF32 on a GPU, see TF32Hook.

    The other arguments are `ImageClassifier`'s.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'train_cfg': RandomBatchAugment, 'compile': compile_arguments}

    def __init__(
        self,
        backbone: dict,
        neck: dict | None = None,
        head: dict | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        compile: str | bool | dict = False,
        tf32: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        data_preprocessor = preprocessor_config(data_preprocessor)
        backbone = share_vae(data_preprocessor, backbone)
        if backbone.get('train_vae'):
            data_preprocessor, backbone = vae_into_backbone(data_preprocessor, backbone)
        width = resolve_arch(backbone.get('arch', 'base'))['embed_dims']
        if neck is not None and neck['type'] == 'ClsBatchNormNeck':
            neck = {'input_features': width, **neck}
        if head is not None:
            head = {'in_channels': width, **head}
            data_preprocessor.setdefault('num_classes', head.get('num_classes'))
        super().__init__(backbone, neck, head, None, train_cfg, data_preprocessor, init_cfg)
        Compiling(compile, ('blocks',)).compile_blocks(self.backbone.blocks)
        self.tf32 = tf32
        self.mix_latents = None
        if backbone.get('train_vae') and self.data_preprocessor.mix_space == 'latent':
            # the data preprocessor still computes the one-hot scores
            self.mix_latents, self.data_preprocessor.batch_augments = self.data_preprocessor.batch_augments, None

    def loss(self, inputs: Tensor, data_samples: list[DataSample]) -> dict[str, Tensor]:
        """mmpretrain's loss. If the VAE is trained and `mix_space` is 'latent', latents and scores are mixed first."""
        if self.mix_latents is not None and self.training:
            scores = torch.stack([sample.gt_score for sample in data_samples])
            inputs, scores = self.mix_latents(self.backbone.to_latents(inputs), scores)
            for sample, score in zip(data_samples, scores, strict=True):
                sample.set_gt_score(score)
        losses: dict[str, Tensor] = super().loss(inputs, data_samples)
        return losses
