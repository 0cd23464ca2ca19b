"""Shapes of latents and networks, derived from the VAE that a config names once, in `data_preprocessor.vae`."""

from dataclasses import dataclass
from typing import Any

from usp_mm.presets import ARCHS, VAES, lookup, nearest
from usp_mm.vaes.settings import vae_name, vae_settings


@dataclass(frozen=True)
class LatentGeometry:
    """Shapes of the latents of square images.

    Attributes:
        channels: Number of latent channels.
        stride: Image pixels per latent pixel, along one side.
        patch_size: Latent pixels per token, along one side.
        img_size: Image side in pixels.
    """

    channels: int
    stride: int
    patch_size: int
    img_size: int

    @property
    def latent_size(self) -> int:
        """Side of the latent in latent pixels."""
        return self.img_size // self.stride

    @property
    def grid(self) -> tuple[int, int]:
        """Number of rows and columns of tokens."""
        side = self.latent_size // self.patch_size
        return side, side

    @property
    def patch_dim(self) -> int:
        """Number of values in a token's patch, over all channels."""
        return self.patch_size**2 * self.channels


def latent_geometry(vae: str, img_size: int, patch_size: int | None = None) -> LatentGeometry:
    """Shapes for a preset of `usp_mm.presets.VAES`.

    Raises:
        ValueError: The preset is unknown, or `img_size` is not a multiple of the VAE's stride times the patch size.
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
    """All settings of an architecture, given as a preset of `usp_mm.presets.ARCHS` or as changes to the preset 'base'.

    Raises:
        ValueError: A preset or key is unknown.
    """
    if isinstance(arch, str):
        return lookup(ARCHS, arch, 'arch')
    for key in arch:
        if key not in ARCHS['base']:
            raise ValueError(f"unknown arch key '{key}': expected {sorted(ARCHS['base'])}{nearest(key, ARCHS['base'])}")
    return {**ARCHS['base'], **arch}


def share_vae(data_preprocessor: dict, network: Any, part: str = 'backbone') -> Any:
    """A copy of a network's config with the VAE preset of the data preprocessor; a built module is returned as it is.

    Args:
        data_preprocessor: Config that names the VAE in `vae`.
        network: Config of a network on latents, or the network itself.
        part: Name of the network in errors.

    Raises:
        ValueError: The network names another VAE than the data preprocessor.
    """
    if not isinstance(network, dict):
        return network
    vae = vae_name(data_preprocessor)
    if 'vae' in network and vae_name(network) != vae:
        raise ValueError(
            f"the {part} is built for VAE '{vae_name(network)}' but the data preprocessor encodes with '{vae}': "
            f'set only model.data_preprocessor.vae, the {part} follows it'
        )
    return {**network, 'vae': vae}


def vae_into_backbone(data_preprocessor: dict, backbone: dict) -> tuple[dict, dict]:
    """Copies of both configs in which the VAE has moved into the backbone and the data preprocessor handles pixels.

    Raises:
        ValueError: The data preprocessor has a setting that only a frozen VAE supports.
    """
    vae = vae_settings(data_preprocessor['vae'])
    of_frozen = {'vae.dtype': vae.get('dtype'), 'vae.encode_batch_size': vae.get('encode_batch_size')}
    for key, value in {**of_frozen, 'noise': data_preprocessor.get('noise')}.items():
        if value is not None:
            raise ValueError(f'data_preprocessor.{key}={value!r} is of a frozen VAE: remove it, or train_vae')
    return {**data_preprocessor, 'vae': 'pixel'}, {**backbone, 'vae': vae, 'encode_images': True}
