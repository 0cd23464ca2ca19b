"""Which VAE `--vae` names."""

from pathlib import Path

from usp_mm.fileio.atomic import read_json
from usp_mm.presets import VAES, nearest

#: Class of a diffusers VAE -> its preset. An AutoencoderKL with a scale of its own is 'tiny'.
_CLASSES = {'AutoencoderDC': 'laptop', 'AutoencoderTiny': 'taesd', 'AutoencoderKL': 'sd-f8d4'}
#: `scaling_factor` of Stable Diffusion's VAE.
_SD_SCALE = 0.18215


def find_vae(vae: str) -> tuple[str, str | None]:
    """Preset and weights of --vae, a preset's name or a folder in diffusers' format.

    Raises:
        ValueError: It is neither, or the folder's VAE is none of the presets.
        FileNotFoundError: The path does not exist.
    """
    if vae in VAES:
        if VAES[vae]['codec'] == 'kl' or vae == 'tiny':
            raise ValueError(f"--vae {vae} needs weights: give the path of a folder, or one of 'laptop', 'taesd', 'sd-f8d4'")
        return vae, None
    if not Path(vae).exists():
        raise FileNotFoundError(
            f"--vae '{vae}' is neither a preset ({', '.join(sorted(VAES))}) nor a folder{nearest(vae, VAES)}"
        )
    folder = next((path for path in (Path(vae), Path(vae, 'vae')) if (path / 'config.json').is_file()), None)
    config = read_json(folder / 'config.json') if folder else None
    if folder is None or config is None:
        raise ValueError(f"--vae '{vae}' must be a folder in diffusers' format, with config.json")
    kind, scale = config.get('_class_name'), config.get('scaling_factor')
    preset = _CLASSES.get(str(kind), '')
    if preset == 'sd-f8d4' and scale not in (None, _SD_SCALE):
        preset = 'tiny'
    if preset not in VAES:
        raise ValueError(f"--vae '{vae}' is a {kind}: expected one of AutoencoderKL, AutoencoderTiny and AutoencoderDC")
    return preset, str(folder.resolve())
