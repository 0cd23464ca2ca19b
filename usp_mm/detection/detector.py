"""Mask R-CNN on the pretrained encoder (Mask R-CNN, arXiv 1703.06870; ViTDet, arXiv 2203.16527)."""

from typing import Any

from mmdet.models import MaskRCNN
from torch import Tensor, nn

from usp_mm.models.compiling import Compiling, compile_arguments
from usp_mm.models.geometry import resolve_arch
from usp_mm.registry import MODELS

from . import pyramid  # noqa: F401  (registers the neck)
from .packages import check_detection_packages


@MODELS.register_module()
class USPMaskRCNN(MaskRCNN):
    """mmdet's `MaskRCNN` with shapes that follow from `backbone.arch`.

    The backbone, a `USPViT` with `encode_images`, returns the token map of its last block without a final norm, from which
    `SimpleFeaturePyramid` makes the scales (ViTDet, section 3). The frozen VAE is its first stage. mmdet's own data
    preprocessor normalises images to [-1, 1]. All blocks attend globally: there are no windows.

    Under autocast, encoder, pyramid and heads compute in bfloat16, and what they return becomes float32: mmdet makes anchors
    and boxes in the type of the scores, bfloat16 has 8 significant bits for coordinates, and mmcv's operators do not take it.

    Args:
        compile: False, 'blocks', or a dict of arguments of torch.compile, see `Compiling`. It applies to the backbone's blocks.
        tf32: Whether float32 may round to TF32 on a GPU, see TF32Hook.

    The other arguments are `MaskRCNN`'s.

    Raises:
        ImportError: The compiled operators of mmcv are not installed.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'compile': compile_arguments}

    def __init__(
        self,
        backbone: dict,
        rpn_head: dict,
        roi_head: dict,
        train_cfg: dict,
        test_cfg: dict,
        neck: dict | None = None,
        data_preprocessor: dict | None = None,
        compile: str | bool | dict = False,
        tf32: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        check_detection_packages()
        width = resolve_arch(backbone.get('arch', 'base'))['embed_dims']
        backbone = {'out_type': 'featmap', 'final_norm': False, **backbone}
        neck = {'type': 'SimpleFeaturePyramid', 'in_channels': width, **(neck or {})}
        parts: dict[str, Any] = dict(backbone=backbone, neck=neck, rpn_head=rpn_head, roi_head=roi_head)
        settings: dict[str, Any] = dict(train_cfg=train_cfg, test_cfg=test_cfg)
        super().__init__(**parts, **settings, data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        Compiling(compile, ('blocks',)).compile_blocks(self.backbone.blocks)
        self.tf32 = tf32
        for part in (self.neck, self.rpn_head, self.roi_head.bbox_head, self.roi_head.mask_head):
            part.register_forward_hook(_in_float32)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(layer of a parameter, number of layers) for layer-wise decay, as in the backbone; neck and heads are the last."""
        depth: tuple[int, int] = self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')
        return depth


def _in_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """A forward hook that converts all tensors of (nested) tuples and lists to float32."""
    if isinstance(outputs, tuple | list):
        return type(outputs)(_in_float32(module, inputs, one) for one in outputs)
    return outputs.float() if isinstance(outputs, Tensor) else outputs
