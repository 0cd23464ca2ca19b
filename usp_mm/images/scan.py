"""List the images in a folder, in the same way for everything that reads image folders."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.fileio import BaseStorageBackend, LocalBackend, get_file_backend
from mmengine.logging import MMLogger

from .endings import image_endings

#: Folders that operating systems and network storage add to a user's files, for previews among others.
SYSTEM_FOLDERS = frozenset({'__MACOSX', '@eaDir', 'lost+found', '$RECYCLE.BIN', 'System Volume Information'})


@dataclass
class FolderListing:
    """The contents of a folder, at any depth; all paths are relative to the folder, with '/' between their parts.

    Attributes:
        root: The folder.
        images: Files with an image's ending, sorted.
        folders: Direct sub-folders, sorted, without hidden ones.
        taken: Number of images with each ending.
        others: Number of other files with each ending.
        hidden: Files and folders whose name begins with '.', and `SYSTEM_FOLDERS`; their contents are not read.
        dangling: Links whose target does not exist.
        special: Pipes, sockets and devices.
    """

    root: str
    images: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    taken: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    hidden: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Number of files; a hidden folder counts as one."""
        return len(self.images) + self.others.total() + len(self.hidden) + len(self.dangling) + len(self.special)

    def add(self, path: str, endings: '_Endings') -> None:
        """Add a file to the listing."""
        ending = _ending(path)
        if ending in endings.simple or (endings.longer and path.lower().endswith(endings.longer)):
            self.images.append(path)
            self.taken[ending] += 1
        else:
            self.others[ending] += 1

    def left_out(self) -> list[str]:
        """Descriptions of what was left out and why."""
        parts = []
        if self.others:
            parts.append(f'{self.others.total()} with another ending ({_counts(self.others)})')
        for names, what in (
            (self.hidden, 'hidden'),
            (self.dangling, 'linked to nothing'),
            (self.special, 'no regular file'),
        ):
            if names:
                parts.append(f'{len(names)} {what} ({_some(names)})')
        return parts


class _Endings:
    """Endings of images: suffixes that begin at a name's last dot, and longer ones such as '_rgb.png'."""

    def __init__(self, endings: Iterable[str]) -> None:
        lower = {ending.lower() for ending in endings}
        self.simple = frozenset(ending for ending in lower if ending.rfind('.') == 0)
        self.longer = tuple(lower - self.simple)


def list_images(root: str | Path, endings: Iterable[str] | None = None) -> FolderListing:
    """List the images and other contents of a folder at any depth, following links.

    Args:
        root: Path or address of the folder, for any mmengine file backend.
        endings: Endings of images, in upper or lower case; those of `image_endings` if None.

    Raises:
        ValueError: A link leads to a folder that contains it, or the name of an image is not UTF-8.
        OSError: A folder can't be read.
    """
    chosen = _Endings(image_endings() if endings is None else endings)
    listing = FolderListing(str(root).rstrip('/') or '/')
    backend = get_file_backend(listing.root, enable_singleton=True)
    if isinstance(backend, LocalBackend):
        _walk(listing, chosen)
    else:
        _ask(backend, listing, chosen)
    listing.images.sort()
    listing.folders.sort()
    _check_names(listing)
    return listing


def images_below(folder: str | Path) -> list[Path]:
    """The images in a folder at any depth, folder by folder in alphabetical order; the list may be empty."""
    listing = list_images(folder)
    log_scan(listing)
    return [Path(folder, path) for path in sorted(listing.images, key=lambda path: path.split('/'))]


def find_images(paths: Sequence[str | Path], num: int | None = None) -> list[Path]:
    """Collect the given files and the images in the given folders, at any depth; `num` picks that many, evenly spaced.

    Raises:
        FileNotFoundError: A path does not exist, or there is no image at all.
        ValueError: See `list_images`.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no image or folder at '{shown(str(path))}'")
        if shown(str(path)) != str(path):
            raise ValueError(f"the name '{shown(str(path))}' is not UTF-8: rename it")
        found += [path] if path.is_file() else images_below(path)
    if not found:
        raise FileNotFoundError(f'no image in {[str(path) for path in paths]}: {looked_for()}')
    num = len(found) if num is None else min(num, len(found))
    return [found[i * len(found) // num] for i in range(num)]


def looked_for(endings: Iterable[str] | None = None) -> str:
    """Describe in words by which endings images are recognised."""
    if endings is None or set(endings) == image_endings():
        return 'looked for the endings of all formats that Pillow reads, such as .jpg, .jpeg, .png, .webp, .tiff and .bmp'
    return f'looked for {", ".join(sorted(endings))}'


def log_scan(listing: FolderListing, beside: Sequence[str] = (), empty: Sequence[str] = ()) -> None:
    """Log one line, on process 0, with the numbers of files found and taken, and what was left out and why.

    Args:
        listing: Listing of the folder.
        beside: Images that were left out because only class folders are read.
        empty: Sub-folders that are no classes because they hold no images.
    """
    if get_rank() or os.environ.get('RANK', '0') != '0':  # a tool may scan before it joins its process group
        return
    taken = listing.taken - Counter(map(_ending, beside))
    parts = listing.left_out()
    if beside:
        parts.append(f'{len(beside)} beside the class folders ({_some(beside)})')
    if empty:
        parts.append(f'{len(empty)} sub-folders without images ({_some(empty)})')
    line = f"images of '{shown(listing.root)}': {listing.found} files found, {taken.total()} taken ({_counts(taken)})"
    logger = MMLogger.get_current_instance()
    say = logger.warning if beside or listing.dangling or listing.special else logger.info
    say(f'{line}; left out: {"; ".join(parts)}' if parts else line)


def shown(name: str) -> str:
    r"""Make a file name printable: bytes that are not UTF-8 become '\xff'."""
    return name.encode(errors='surrogateescape').decode(errors='backslashreplace')


def _walk(listing: FolderListing, endings: _Endings) -> None:
    """Fill the listing from a local folder, with one `scandir` per folder and further system calls only for links."""
    found = os.stat(listing.root)
    folders = [('', frozenset({(found.st_dev, found.st_ino)}))]
    while folders:
        folder, above = folders.pop()
        with os.scandir(os.path.join(listing.root, folder)) as entries:
            for entry in entries:
                path = f'{folder}/{entry.name}' if folder else entry.name
                if entry.name[0] == '.' or entry.name in SYSTEM_FOLDERS:
                    listing.hidden.append(path)
                elif entry.is_symlink() and not _leads_somewhere(entry):
                    listing.dangling.append(path)
                elif entry.is_dir():
                    folders.append((path, above | {_identity(entry, path, listing.root, above)}))
                    if not folder:
                        listing.folders.append(path)
                elif entry.is_file():
                    listing.add(path, endings)
                else:
                    listing.special.append(path)


def _leads_somewhere(link: os.DirEntry) -> bool:
    try:
        link.stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # ELOOP: a link to itself
            return False
        raise
    return True


def _identity(entry: os.DirEntry, path: str, root: str, above: frozenset[tuple[int, int]]) -> tuple[int, int]:
    """(device, inode) of a folder; raises a ValueError if a link leads to one of the folders `above` it."""
    found = entry.stat()
    identity = (found.st_dev, found.st_ino)
    if entry.is_symlink() and identity in above:
        raise ValueError(
            f"'{shown(os.path.join(root, path))}' is a link to '{shown(os.path.realpath(entry.path))}', a folder that it lies "
            'in, so its images would be found again and again: delete the link'
        )
    return identity


def _ask(backend: BaseStorageBackend, listing: FolderListing, endings: _Endings) -> None:
    """Fill the listing from a folder in another storage, with mmengine's file backend."""

    def hidden(path: str) -> bool:
        return any(part.startswith('.') or part in SYSTEM_FOLDERS for part in path.split('/'))

    for path in backend.list_dir_or_file(listing.root, list_dir=True, list_file=False, recursive=False):
        (listing.hidden if hidden(path) else listing.folders).append(path)
    for path in backend.list_dir_or_file(listing.root, list_dir=False, list_file=True, recursive=True):
        if not hidden(path):
            listing.add(path, endings)
        elif path.split('/')[0] not in listing.hidden:
            listing.hidden.append(path)


def _check_names(listing: FolderListing) -> None:
    """Raise a ValueError for names that can't be written to text files, logs and JSON."""
    try:
        '\n'.join((*listing.images, *listing.folders)).encode()
    except UnicodeEncodeError:
        bad = [path for path in (*listing.images, *listing.folders) if shown(path) != path]
        raise ValueError(
            f"{len(bad)} names in '{shown(listing.root)}' are not UTF-8, such as '{shown(bad[0])}': rename them "
            '(convmv -f latin1 -t utf8 -r --notest does it for a whole folder)'
        ) from None


def _ending(path: str) -> str:
    dot = path.rfind('.', path.rfind('/') + 1)
    return path[dot:].lower() if dot >= 0 else ''


def _some(names: Sequence[str]) -> str:
    """The first three names, as text."""
    shortened = ', '.join(f"'{shown(name)}'" for name in sorted(names)[:3])
    return shortened if len(names) <= 3 else f'{shortened}, …'


def _counts(endings: Counter[str]) -> str:
    """The six most frequent endings and their numbers, as text."""
    frequent = sorted(endings.items(), key=lambda item: (-item[1], item[0]))[:6]
    parts = [f'{shown(ending) or "no ending"} {count}' for ending, count in frequent]
    return ', '.join(parts + ['…'] * (len(endings) > 6))
