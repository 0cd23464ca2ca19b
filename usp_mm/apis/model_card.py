"""Write the README.md of a model folder, which the hub shows as its model card."""

from collections.abc import Mapping
from typing import Any

from huggingface_hub import ModelCardData

from usp_mm.presets import VAES
from usp_mm.vaes.record import describe_record
from usp_mm.vaes.settings import vae_settings

from .sources import vae_part

_TASKS = {
    'USP': ('image-feature-extraction', 'An encoder and its decoder, pretrained by masked latent modelling (USP)'),
    'USPClassifier': ('image-classification', 'A ViT on latents of a frozen VAE'),
    'USPSegmentor': ('image-segmentation', "mmseg's UPerNet on an encoder of latents of a frozen VAE"),
    'LatentDiffusionGenerator': ('unconditional-image-generation', 'A class-conditional latent generator'),
}
_USES = {
    'USP': """encoder = usp_mm.from_pretrained('{name}')
features = encoder.encode(['cat.jpg', 'dog.jpg'], pool='mean')
picture, mask, vae_only = encoder.restore('cat.jpg', mask_ratio=0.75, seed=0)""",
    'encoder': """encoder = usp_mm.from_pretrained('{name}')
features = encoder.encode(['cat.jpg', 'dog.jpg'], pool='mean')""",
    'USPClassifier': """classifier = usp_mm.from_pretrained('{name}')
best = classifier.classify(['cat.jpg', 'dog.jpg'], topk=5)
features = classifier.encode(['cat.jpg', 'dog.jpg'], pool='mean')""",
    'USPSegmentor': """segmentor = usp_mm.from_pretrained('{name}')
labels = segmentor.segment('cat.jpg')  # uint8[H, W]; segmentor.classes has the names
segmentor.overlay('cat.jpg', labels).save('classes.png')""",
    'LatentDiffusionGenerator': """generator = usp_mm.from_pretrained('{name}')
pictures = generator.sample([0, 1], guidance=4, steps=50, seed=0)""",
}


def model_card(
    name: str,
    cfg: Mapping[str, Any],
    info: Mapping[str, Any],
    numbers: Mapping[str, Any],
    picture: str | None = None,
    license: str | None = None,
) -> str:
    """Write the card as Markdown with the hub's metadata.

    Args:
        name: Id on the hub or name of the folder, for the example.
        cfg: Config of the model.
        info: Content of `run_info.json`.
        numbers: Measured results by name.
        picture: File name of a picture in the folder.
        license: License of the weights.
    """
    kind = cfg['model']['type']
    task, description = _TASKS[kind]
    use = _USES['encoder' if kind == 'USPClassifier' and not cfg['model'].get('head') else kind]
    data = ModelCardData(license=license, library_name='usp_mm', pipeline_tag=task, tags=['usp', 'arxiv:2503.06132'])
    parts = [f'---\n{data.to_yaml()}\n---', f'# {name.split("/")[-1]}', f'{description}: {_network_text(cfg["model"])}.']
    if picture:
        parts.append(f'![{kind}]({picture})')
    parts += [
        '## Use',
        f'It needs usp_mm: `pip install .` in its checkout.\n\n```python\nimport usp_mm\n\n{use.format(name=name)}\n```',
    ]
    parts += ['## VAE', _vae_text(cfg['model'], info)]
    if numbers:
        rows = '\n'.join(f'| {what} | {value} |' for what, value in numbers.items())
        parts += ['## Numbers', f'| | |\n|---|---|\n{rows}']
    parts += ['## Origin', _origin(info)]
    return '\n\n'.join(parts) + '\n'


def _network_text(model: Mapping[str, Any]) -> str:
    part = model.get('denoiser') or model['backbone']
    size = part.get('arch', 'base')
    size = size if isinstance(size, str) else ', '.join(f'{key} {value}' for key, value in size.items())
    classes = part.get('num_classes', 1000) if 'denoiser' in model else _head(model).get('num_classes')
    text = f'`{part["type"]}`, {size}, images of {part.get("img_size", 256 if "denoiser" in model else 224)} pixels'
    return text + (f', {classes} classes' if classes else '')


def _head(model: Mapping[str, Any]) -> Mapping[str, Any]:
    return model.get('decode_head') or model.get('head') or {}


def _vae_text(model: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    vae = vae_settings(vae_part(dict(model)).get('vae'))
    name = vae['name']
    row = VAES[name]
    if row['codec'] == 'pixel':
        return 'None: the network sees pixels.'
    inside = str(vae.get('path') or '').startswith('{{')
    record = f', {describe_record(info["vae"])}' if info.get('vae') else ''
    where = 'It lies beside the weights' if inside else 'It is not part of this folder'
    licence = f', and has a licence of its own: {row["licence"]}' if row['licence'] else ''  # a VAE of one's own has none
    return f'Preset `{name}` ({row["source"]}){record}. {where}{licence}.'


def _origin(info: Mapping[str, Any]) -> str:
    rows = {
        'weights': info.get('weights'), 'iterations': info.get('iter'), 'epoch': info.get('epoch'),
        'converted from': info.get('converted_from'), 'checkpoint': info.get('checkpoint'),
        'sha256 of the checkpoint': info.get('checkpoint_sha256'), 'sha256 of model.safetensors': info['weights_sha256'],
        'parameters': f'{info["parameters"]:,}', 'versions': ', '.join(f'{k} {v}' for k, v in info['versions'].items()),
    }  # fmt: skip
    lines = '\n'.join(f'- {what}: {value}' for what, value in rows.items() if value is not None)
    return f'{lines}\n\nMore is in `run_info.json`. `config.py` holds only values, and is read without being executed.'
