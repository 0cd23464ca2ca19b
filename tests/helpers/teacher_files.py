"""A small teacher of timm's, with random weights, as timm's hub has it: a folder with config.json and model.safetensors."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

#: timm's 3-million-parameter test network: patches of 16 pixels, width 64, a class token.
MODEL, DIM = 'test_vit', 64


def teacher_folder(folder: Path) -> Path:
    """The folder, written."""
    import timm

    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(MODEL, pretrained=False)
    save_file(network.state_dict(), folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps(dict(architecture=MODEL, num_classes=1000)))
    return folder
