"""Configs by the names of those that come with the package, from any folder."""

from pathlib import Path

from usp_mm.presets import nearest

_PACKAGE = Path(__file__).resolve().parent


def configs_folder(package: Path = _PACKAGE) -> Path | None:
    """Where the configs of this package are: `.mim/configs` of an installed wheel, else `configs` of the checkout."""
    installed, checkout = package / '.mim' / 'configs', package.parent
    if installed.is_dir():
        return installed
    return checkout / 'configs' if (checkout / 'model-index.yml').is_file() and (checkout / 'configs').is_dir() else None


def find_config(name: str | Path, folder: Path | None = None) -> Path:
    """The file of a config: `name` itself where it is one, else the one of this name that comes with the package.

    Args:
        name: a file, or 'NAME', 'NAME.py', 'sit/NAME.py' or 'configs/sit/NAME.py' of a config that comes with the package.
        folder: of the configs that names are looked up in; that of the package if None.

    Raises:
        FileNotFoundError: neither; names the nearest one.
        ValueError: several have this name.
    """
    if Path(name).is_file():
        return Path(name)
    folder = configs_folder() if folder is None else folder
    files = {} if folder is None else {path.relative_to(folder).with_suffix('').as_posix(): path for path in _configs(folder)}
    wanted = Path(name).as_posix().removeprefix('configs/').removesuffix('.py')
    found = [key for key in files if key == wanted or key.endswith(f'/{wanted}')]
    if len(found) > 1:
        raise ValueError(f"config '{name}' is one of {', '.join(sorted(found))}: give the folder too")
    if not found:
        stems = {key.rsplit('/', 1)[-1]: key for key in files}
        close = nearest(Path(wanted).name, stems)
        raise FileNotFoundError(f"no config at '{name}': give a file, or the name of a config that comes with usp_mm{close}")
    return files[found[0]]


def _configs(folder: Path) -> list[Path]:
    """All but those that others are made of."""
    return sorted(path for path in folder.rglob('*.py') if '_base_' not in path.relative_to(folder).parts)
