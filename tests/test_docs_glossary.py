"""docs/glossary.md: what stands for a term is there, and the older names are those that still work."""

import importlib
import re

import pytest
from helpers.small_world import ROOT
from mmengine.config import Config

PAGE = (ROOT / 'docs' / 'glossary.md').read_text()
TERMS = re.findall(r'^- \*\*([^*]+)\*\*', PAGE, re.MULTILINE)
CODE = sorted(set(re.findall(r'`(usp_mm\.[\w.]+)`', PAGE)))
KEYS = sorted(set(re.findall(r'`(model\.[a-z_.]+)`', PAGE.split('## Older names')[0])))
CONFIGS = [
    Config.fromfile(ROOT / path, import_custom_modules=False).model
    for path in (
        'configs/usp/usp_vit-base_noise_64xb64-amp-coslr-800e_in1k.py',
        'configs/sit/sit-xl-p2_usp-pre_repa_8xb32-400k_in1k-256px.py',
        'configs/sit/sit-xl-p2_usp-pre_tread_8xb32-400k_in1k-256px-latents.py',
        'configs/upernet/upernet_vit-base_usp-pre_8xb2-amp-160k_ade20k-512x512.py',
    )
]
#: Keys that no config sets.
DEFAULTS = {'model.sample_model'}


def test_the_terms():
    wanted = {
        'VAE', 'codec', 'moments', 'latent', 'img_size', 'encoder', 'denoiser', 'weights', 'sample key', 'epoch index', 'cache',
        'shard', 'manifest', 'preset', 'arch', 'guidance', 'sampler', 'objective', 'teacher',
    }  # fmt: skip
    assert wanted <= set(TERMS) and len(TERMS) == len(set(TERMS))


@pytest.mark.parametrize('name', CODE)
def test_what_stands_for_a_term_is_there(name):
    parts = name.split('.')
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module('.'.join(parts[:end]))
            break
        except ModuleNotFoundError:
            continue
    for part in parts[end:]:
        found = getattr(found, part)


@pytest.mark.parametrize('key', KEYS)
def test_keys_are_those_of_configs(key):
    def has(node):
        for part in key.split('.')[1:]:
            if not hasattr(node, 'get') or node.get(part) is None:
                return False
            node = node.get(part)
        return True

    assert any(map(has, CONFIGS)) != (key in DEFAULTS)
