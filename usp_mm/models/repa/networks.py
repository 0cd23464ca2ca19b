"""Networks of teachers: functions that build them, load their weights strictly and run them."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from usp_mm.fileio.addresses import hub_repo_kept, hub_silence
from usp_mm.fileio.strict_loading import explain_misfit, load_exactly
from usp_mm.fileio.weights import check_finite, read_weights
from usp_mm.presets import TEACHERS, nearest
from usp_mm.registry import MODELS

#: Weights file in a folder downloaded from timm's hub.
_FOLDER_FILE = 'model.safetensors'


def timm_shape(model: str) -> tuple[str, int, int | None]:
    """(model, width, patch size) of a timm model, found without its weights; patch size None if it is not a ViT.

    Raises:
        ValueError: timm has no such model.
    """
    import timm
    from timm.layers import to_2tuple

    if not timm.is_model(model):
        valid = [*TEACHERS, *timm.list_models()]
        raise ValueError(
            f"unknown teacher '{model}': expected one of {sorted(TEACHERS)} or a model of timm{nearest(model, valid)}"
        )
    with torch.device('meta'):
        network: Any = timm.create_model(model, pretrained=False, num_classes=0)
    patches = getattr(network, 'patch_embed', None) if hasattr(network, 'num_prefix_tokens') else None
    return model, network.num_features, None if patches is None else to_2tuple(patches.patch_size)[0]


def load_timm(model: str, path: str | Path | None, size: int | None) -> nn.Module:
    """Build a timm model and load pretrained weights.

    Args:
        model: timm's name of the model.
        path: A file, or a folder with config.json and weights as downloaded from timm's hub; None downloads from the hub.
        size: Image side in pixels that timm resizes the position table to; None leaves it as it is.

    Raises:
        FileNotFoundError: There are no weights, or the hub can't be reached.
        ValueError: The weights are those of another model.
    """
    import timm

    options: dict[str, Any] = {} if size is None else dict(img_size=size)
    if path is None:
        if not timm.is_model_pretrained(model):
            raise ValueError(f"timm has no pretrained weights of '{model}': set repa.teacher.path (--teacher-path)")
        hub_id = getattr(timm.get_pretrained_cfg(model), 'hf_hub_id', None)
        obtain = f'`hf download {hub_id} --local-dir DIR` and set repa.teacher.path=DIR (--teacher-path DIR)'
        if (reason := hub_silence()) and not hub_repo_kept(hub_id):
            raise FileNotFoundError(f"the hub did not give the weights of teacher '{model}': {obtain} ({reason})")
    else:
        weights, normalization = _read(Path(path), model)
        classifier = getattr(timm.get_pretrained_cfg(model), 'classifier', None) or ''
        head = weights.get(f'{classifier if isinstance(classifier, str) else classifier[0]}.weight')  # distilled ones have two
        options['num_classes'] = 0 if head is None else len(head)
        overlay = dict(state_dict=weights, custom_load=False, num_classes=options['num_classes'], **normalization)
        options['pretrained_cfg_overlay'], obtain = overlay, 'give the weights of this model'
    try:
        with explain_misfit(path or 'the hub', f"teacher '{model}'", obtain):
            network: Any = timm.create_model(model, pretrained=True, **options)
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(f"the hub did not give the weights of teacher '{model}': {obtain} ({reason})") from error
    network.reset_classifier(0)
    if path is None:
        check_finite(network.state_dict(), model)
    return network


def _read(path: Path, model: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights, and the mean and std of images in [0, 1] if a folder's config has them."""
    if not path.is_dir():
        return read_weights(path), {}
    config = json.loads((path / 'config.json').read_text()) if (path / 'config.json').is_file() else {}
    found = config.get('architecture', model)
    if found != model.split('.')[0]:
        raise ValueError(f"'{path}' holds timm's '{found}', the teacher is '{model}': name the one that it is")
    if not (path / _FOLDER_FILE).is_file():
        raise FileNotFoundError(f"'{path}' holds no {_FOLDER_FILE} of teacher '{model}'")
    trained = config.get('pretrained_cfg', {})
    return read_weights(path / _FOLDER_FILE), {key: trained[key] for key in ('mean', 'std') if key in trained}


def timm_normalization(network: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation, in [0, 255], that timm's model was trained with."""
    config: dict[str, Any] = network.pretrained_cfg
    return [255 * x for x in config['mean']], [255 * x for x in config['std']]


def run_timm(network: Any, images: Tensor) -> Tensor:
    """Patch tokens after the final norm, [N, L, E], or the last feature map, [N, E, h, w]."""
    out: Tensor = network.forward_features(images)
    if out.ndim == 3:
        return out[:, getattr(network, 'num_prefix_tokens', 0) :]
    return out.permute(0, 3, 1, 2) if str(getattr(network, 'output_fmt', 'NCHW')).endswith('NHWC') else out


def load_backbone(backbone: dict, checkpoint: str | Path, prefix: str) -> nn.Module:
    """Build a registered encoder and strictly load the weights of a checkpoint whose names begin with `prefix`.

    Raises:
        FileNotFoundError: The checkpoint does not exist.
        ValueError: The weights are those of another encoder.
    """
    weights = {k[len(prefix) :]: v for k, v in read_weights(checkpoint).items() if k.startswith(prefix)}
    if not weights:
        raise ValueError(f"'{checkpoint}' has no weights '{prefix}…' for the teacher: set repa.teacher.prefix")
    network = MODELS.build({**backbone, 'init_cfg': None})
    load_exactly(
        network, weights, checkpoint, f"the teacher's {backbone['type']}", fix='make repa.teacher.backbone and checkpoint agree'
    )
    return network


def run_backbone(network: nn.Module, images: Tensor) -> Tensor:
    """The last of the encoder's outputs."""
    out = network(images)
    return out[-1] if isinstance(out, tuple | list) else out
