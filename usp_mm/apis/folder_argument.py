"""Let a command take a model folder in place of a config and a checkpoint."""

from argparse import Namespace
from pathlib import Path

from usp_mm.fileio.addresses import is_address
from usp_mm.fileio.weights import FOLDER_CONFIG, FOLDER_WEIGHTS

from .config_data import check_types, parse_config


def take_folder(args: Namespace, images: str | None = None) -> None:
    """Replace a model folder in `args.config` by the folder's config and weights.

    Args:
        args: Arguments of a command, whose option `checkpoint` may be missing (None). Changed in place. A command
            with a `launcher` has a work folder, which is then named after the model folder.
        images: Name of positional arguments that follow; the word after a folder is the first of them.

    Raises:
        ValueError: There is no checkpoint and no folder, or both, or the folder's config is not plain values of known types.
        FileNotFoundError: The folder has no config or no weights.
    """
    folder = Path(args.config)
    if not folder.is_dir():
        if args.checkpoint is None:
            raise ValueError(f"'{args.config}' is no model folder: give CONFIG and CHECKPOINT, or a folder of `usp export`")
        return
    if args.checkpoint is not None and images is None:
        raise ValueError(f"'{folder}' is a folder, which holds its own weights: leave '{args.checkpoint}' out")
    for name in (FOLDER_CONFIG, FOLDER_WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"'{folder}' is no model folder, it has no {name}: write one with `usp export`")
    check_types(parse_config((folder / FOLDER_CONFIG).read_text(), folder / FOLDER_CONFIG).get('model', {}), folder)
    if images is not None and args.checkpoint is not None:
        setattr(args, images, [args.checkpoint, *getattr(args, images)])
    if hasattr(args, 'launcher') and args.work_dir is None:
        args.work_dir = str(Path('work_dirs', folder.resolve().name))
    args.config, args.checkpoint = str(folder / FOLDER_CONFIG), str(folder / FOLDER_WEIGHTS)


def take_model(args: Namespace, images: str) -> tuple[str | Path, str | None]:
    """The source and the config for `usp_mm.from_pretrained` of a command's words CONFIG CHECKPOINT IMAGES… or MODEL IMAGES….

    Args:
        args: Arguments of a command; a word that was taken for the checkpoint goes back to the images.
        images: Name of the positional arguments that follow.

    Returns:
        A model folder or a file of weights, which say themselves what they are, and None; or CHECKPOINT and CONFIG.

    Raises:
        ValueError: There is a config and no checkpoint.
        FileNotFoundError: The checkpoint does not exist.
    """
    first = Path(args.config)
    if first.is_dir() or (first.is_file() and first.suffix != '.py'):
        if args.checkpoint is not None:
            setattr(args, images, [args.checkpoint, *getattr(args, images)])
        return first, None
    if args.checkpoint is None:
        raise ValueError(f"'{args.config}' is no model folder and no checkpoint: give one, or CONFIG and CHECKPOINT")
    if not is_address(args.checkpoint) and not Path(args.checkpoint).is_file():
        raise FileNotFoundError(f"no checkpoint at '{args.checkpoint}'")
    return args.checkpoint, args.config
