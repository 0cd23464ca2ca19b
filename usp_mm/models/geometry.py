"""What follows from naming a VAE once: the shapes of everything downstream.

A config names the VAE in `data_preprocessor.vae`; backbone and decoder shapes are derived here.
"""

from dataclasses import dataclass
from typing import Any

from usp_mm.presets import ARCHS, VAES, lookup, nearest


@dataclass(frozen=True)
class LatentGeometry:
    """Shapes of the latent of square images.

    Attributes:
        channels: of the latent.
        stride: image pixels per latent pixel.
        patch_size: latent pixels per token side.
        img_size: image side in pixels.
    """

    channels: int
    stride: int
    patch_size: int
    img_size: int

    @property
    def latent_size(self) -> int:
        """Side of the latent."""
        return self.img_size // self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """Tokens per column and per row."""
        side = self.latent_size // self.patch_size
        return side, side

    @property
    def patch_dim(self) -> int:
        """Numbers in a token's patch."""
        return self.patch_size**2 * self.channels


def latent_geometry(vae: str, img_size: int, patch_size: int | None = None) -> LatentGeometry:
    """Shapes for a preset of `usp_mm.presets.VAES`.

    Raises:
        ValueError: an unknown preset, or an image side that the VAE's stride times the patch does not divide.
    """
    row = lookup(VAES, vae, 'VAE')
    patch = patch_size or row['patch_size']
    unit = row['stride'] * patch
    if img_size % unit:
        raise ValueError(
            f"img_size={img_size} does not suit VAE '{vae}': its stride {row['stride']} times patch {patch} needs a "
            f'multiple of {unit}, such as {max(1, round(img_size / unit)) * unit}'
        )
    return LatentGeometry(row['channels'], row['stride'], patch, img_size)


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """A row of `usp_mm.presets.ARCHS`, or a dict that sets the same keys (missing ones as in 'base').

    Raises:
        ValueError: an unknown preset or key.
    """
    if isinstance(arch, str):
        return lookup(ARCHS, arch, 'arch')
    for key in arch:
        if key not in ARCHS['base']:
            raise ValueError(f"unknown arch key '{key}': expected {sorted(ARCHS['base'])}{nearest(key, ARCHS['base'])}")
    return {**ARCHS['base'], **arch}


def share_vae(data_preprocessor: dict, network: Any, part: str = 'backbone') -> Any:
    """A copy of the config of `part`, a network on latents, with the preprocessor's VAE preset in it (a built module passes).

    Raises:
        ValueError: the network names another VAE than the data preprocessor.
    """
    if not isinstance(network, dict):
        return network
    vae = data_preprocessor['vae']
    if network.get('vae', vae) != vae:
        raise ValueError(
            f"the {part} is built for VAE '{network['vae']}' but the data preprocessor encodes with '{vae}': "
            f'set model.data_preprocessor.vae alone, the {part} follows it'
        )
    return {**network, 'vae': vae}


def vae_into_backbone(data_preprocessor: dict, backbone: dict) -> tuple[dict, dict]:
    """Copies of both configs, the VAE moved from the first to the second: what is left in front of it are pixels.

    Raises:
        ValueError: the data preprocessor sets what only a frozen VAE has.
    """
    for key in ('vae_dtype', 'encode_batch_size', 'noise'):
        if data_preprocessor.get(key) is not None:
            raise ValueError(f'data_preprocessor.{key}={data_preprocessor[key]!r} is of a frozen VAE: remove it, or train_vae')
    moved = {'vae_path': 'path', 'vae_stats': 'stats'}
    codec = {ours: data_preprocessor[key] for key, ours in moved.items() if key in data_preprocessor}
    rest = {key: value for key, value in data_preprocessor.items() if key not in moved}
    return {**rest, 'vae': 'pixel'}, {**backbone, 'codec': codec}
