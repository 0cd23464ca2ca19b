"""Write the folder of a `SiTPipeline`, completely or not at all."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from usp_mm.fileio.atomic import check_free_space, write_folder, write_json

from ..diffusers_dit import WEIGHTS
from ..write import own, save_safe

_HERE = Path(__file__).parent


def write_sit_pipeline(
    out: Path, weights: Mapping[str, Tensor], network: Mapping[str, Any], settings: Mapping[str, Any], vae: Any = None
) -> None:
    """Write weights, configs, the two files of code and, if given, the VAE.

    Args:
        out: A folder that does not exist or is empty.
        weights: State dict of the network, under official names.
        network: Arguments of `SiTTransformer2DModel`.
        settings: Arguments of `SiTPipeline` except its modules.
        vae: A VAE of diffusers; None writes no VAE.

    Raises:
        ValueError: The weights are not those of such a network.
        OSError: There is too little disk space.
    """
    import diffusers

    from .sit import SiTTransformer2DModel

    with torch.device('meta'):
        model: Any = SiTTransformer2DModel(**network)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if differ := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
        raise ValueError(f'{len(differ)} tensors are not those of a SiT with these settings: {", ".join(differ[:4])}')
    index = {
        '_class_name': ['pipeline', 'SiTPipeline'],
        '_diffusers_version': diffusers.__version__,
        'transformer': ['sit', 'SiTTransformer2DModel'],
        'vae': [None, None] if vae is None else ['diffusers', type(vae).__name__],
        **settings,
    }
    check_free_space(out.absolute().parent, sum(value.nbytes for value in weights.values()))
    with write_folder(out) as folder:
        model.save_config(folder / 'transformer')
        shutil.copyfile(_HERE / 'sit.py', folder / 'transformer' / 'sit.py')
        shutil.copyfile(_HERE / 'pipeline.py', folder / 'pipeline.py')
        save_safe({name: own(value.detach().cpu()) for name, value in weights.items()},
                   folder / 'transformer' / f'{WEIGHTS}.safetensors')  # fmt: skip
        if vae is not None:
            vae.save_pretrained(folder / 'vae')
        write_json(folder / 'model_index.json', index)
        for file in folder.glob('vae/*.safetensors'):
            file.chmod((folder / 'model_index.json').stat().st_mode)
