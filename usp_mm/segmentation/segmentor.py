"""UPerNet on the pretrained encoder (USP section 3.3.2; UPerNet, arXiv 1807.10221)."""

from collections.abc import Sequence

from mmseg.models import EncoderDecoder

from usp_mm.models.compiling import Compiling, compile_arguments
from usp_mm.models.geometry import resolve_arch
from usp_mm.registry import MODELS


@MODELS.register_module()
class USPSegmentor(EncoderDecoder):
    """mmseg's `EncoderDecoder` with shapes that follow from `backbone.arch`.

    The backbone, a `USPViT` with `encode_images`, returns the token maps of four blocks (`feature_blocks`) without a final
    norm, as in MAE's recipe (arXiv 2111.06377, appendix A.4). The frozen VAE is its first stage, so that crops and sliding
    windows are measured in pixels. mmseg's own data preprocessor normalises images to [-1, 1].

    Args:
        norm_cfg: Config of the norms in the neck and both heads, unless they set their own.
        auxiliary_head: Config of the auxiliary head, whose `num_classes` defaults to the decode head's.
        compile: False, 'blocks', or a dict of arguments of torch.compile, see `Compiling`. It applies to the backbone's blocks.
        tf32: Whether float32 may round to TF32 on a GPU, see TF32Hook.

    The other arguments are `EncoderDecoder`'s.
    """

    #: Arguments that are dicts -> the callable whose signature their keys must fit.
    ARGUMENTS_OF = {'compile': compile_arguments}

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        auxiliary_head: dict | None = None,
        norm_cfg: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        compile: str | bool | dict = False,
        tf32: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        arch = resolve_arch(backbone.get('arch', 'base'))
        width, norm = arch['embed_dims'], {} if norm_cfg is None else {'norm_cfg': norm_cfg}
        indices = feature_blocks(arch['depth'])
        backbone = {'out_type': 'featmap', 'out_indices': indices, 'final_norm': False, **backbone}
        if neck is not None:
            neck = {**norm, 'embed_dim': width, **neck}
        inputs = dict(in_channels=[width] * len(indices), in_index=list(range(len(indices))), channels=width)
        decode_head = {**norm, **inputs, **decode_head}
        if auxiliary_head is not None:
            auxiliary_head = {**norm, 'in_channels': width, 'num_classes': decode_head['num_classes'], **auxiliary_head}
        super().__init__(backbone, decode_head, neck, auxiliary_head, train_cfg, test_cfg, data_preprocessor, None, init_cfg)
        Compiling(compile, ('blocks',)).compile_blocks(self.backbone.blocks)
        self.tf32 = tf32

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """(layer of a parameter, number of layers) for layer-wise decay, as in the backbone; neck and heads are the last."""
        depth: tuple[int, int] = self.backbone.get_layer_depth(param_name, f'{prefix}backbone.')
        return depth


#: Depth -> blocks whose output is taken in MAE's and BEiT's base and large models.
_BLOCKS = {12: (3, 5, 7, 11), 24: (7, 11, 15, 23)}


def feature_blocks(depth: int) -> Sequence[int]:
    """Numbers of the four blocks whose output is taken: those of a known recipe, else the last of each quarter."""
    return _BLOCKS.get(depth) or tuple(depth * quarter // 4 - 1 for quarter in range(1, 5))
