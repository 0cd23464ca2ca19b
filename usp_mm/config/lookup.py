"""Find the configs that come with the package by name, whatever the current folder is."""

from pathlib import Path

from usp_mm.presets import nearest

_PACKAGE = Path(__file__).resolve().parents[1]
#: How MMEngine writes that a config is in a package.
PREFIX = 'usp_mm::'


def configs_folder(package: Path = _PACKAGE) -> Path | None:
    """The folder of this package's configs: `.mim/configs` of an installed wheel, or `configs` of a source checkout."""
    installed, checkout = package / '.mim' / 'configs', package.parent
    if installed.is_dir():
        return installed.resolve()  # of a checkout a link
    return checkout / 'configs' if (checkout / 'model-index.yml').is_file() and (checkout / 'configs').is_dir() else None


#: Endings of the files that MMEngine reads as configs.
_ENDINGS = ('.py', '.json', '.yaml', '.yml')


def find_config(name: str | Path, folder: Path | None = None) -> Path:
    """Return `name` if it is an existing file, and otherwise the file of the packaged config of that name.

    Args:
        name: A file, or a config that comes with the package as 'NAME', 'NAME.py', 'sit/NAME.py' or 'configs/sit/NAME.py';
            with MMEngine's 'usp_mm::' before it also one of the base configs, as 'usp_mm::_base_/default_runtime.py'.
        folder: Folder of configs in which names are looked up; the package's own if None.

    Raises:
        FileNotFoundError: Neither exists; the message suggests the closest name.
        ValueError: Several packaged configs have this name, or the file is no config.
    """
    if Path(name).is_file():
        if Path(name).suffix not in _ENDINGS:
            raise ValueError(f"'{name}' is no config: its name would end in {', '.join(_ENDINGS)}")
        return Path(name)
    folder = configs_folder() if folder is None else folder
    if str(name).startswith(PREFIX):
        name = str(name).removeprefix(PREFIX)
        if folder is not None and (folder / name).is_file():
            return folder / name
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
    """All configs in `folder`, except the base configs that others inherit from."""
    return sorted(path for path in folder.rglob('*.py') if '_base_' not in path.relative_to(folder).parts)
