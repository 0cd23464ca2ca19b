"""One walk through a folder of images, for everything that reads one."""

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

#: Folders that operating systems and network storage lay beside a user's files, previews among them.
SYSTEM_FOLDERS = frozenset({'__MACOSX', '@eaDir', 'lost+found', '$RECYCLE.BIN', 'System Volume Information'})


@dataclass
class FolderListing:
    """What lies in a folder, at any depth; every path is relative to it, with '/' between its parts.

    Attributes:
        root: the folder.
        images: files with an image's ending, sorted.
        folders: its own sub-folders, sorted, without hidden ones.
        taken: how many images have each ending.
        others: how many other files have each ending.
        hidden: files and folders whose name begins with '.', and `SYSTEM_FOLDERS`; what is in them is not looked at.
        dangling: links that lead to nothing.
        special: pipes, sockets and devices.
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
        """How many files there are; a hidden folder counts as one."""
        return len(self.images) + self.others.total() + len(self.hidden) + len(self.dangling) + len(self.special)

    def add(self, path: str, endings: '_Endings') -> None:
        """Count a file in."""
        ending = _ending(path)
        if ending in endings.simple or (endings.longer and path.lower().endswith(endings.longer)):
            self.images.append(path)
            self.taken[ending] += 1
        else:
            self.others[ending] += 1

    def left_out(self) -> list[str]:
        """What was not taken and why, in words."""
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
    """Endings of images: those that begin at a name's last dot, and others, such as '_rgb.png'."""

    def __init__(self, endings: Iterable[str]) -> None:
        lower = {ending.lower() for ending in endings}
        self.simple = frozenset(ending for ending in lower if ending.rfind('.') == 0)
        self.longer = tuple(lower - self.simple)


def list_images(root: str | Path, endings: Iterable[str] | None = None) -> FolderListing:
    """Walk through a folder, following links.

    Args:
        root: the folder; any mmengine file backend.
        endings: of images, in any case; those of `image_endings` if None.

    Raises:
        ValueError: a link to a folder that it lies in, or an image whose name is not UTF-8.
        OSError: a folder can't be read.
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
    """The images in a folder at any depth, folder by folder in alphabetical order; none is not an error."""
    listing = list_images(folder)
    log_scan(listing)
    return [Path(folder, path) for path in sorted(listing.images, key=lambda path: path.split('/'))]


def find_images(paths: Sequence[str | Path], num: int | None = None) -> list[Path]:
    """The given files and the images in the given folders, at any depth; `num` of them, spread evenly, if given.

    Raises:
        FileNotFoundError: a path that is not there, or no image at all.
        ValueError: see `list_images`.
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
    """By what images are known, in words."""
    if endings is None or set(endings) == image_endings():
        return 'looked for the endings of all formats that Pillow reads, such as .jpg, .jpeg, .png, .webp, .tiff and .bmp'
    return f'looked for {", ".join(sorted(endings))}'


def log_scan(listing: FolderListing, beside: Sequence[str] = (), empty: Sequence[str] = ()) -> None:
    """Say in one line, on process 0, how many files were found and taken, what was left out and why.

    Args:
        listing: of the folder.
        beside: images that were left out because only class folders are read.
        empty: sub-folders without images that do not count as classes.
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
    r"""A file name that can be printed: bytes that are not UTF-8 as '\xff'."""
    return name.encode(errors='surrogateescape').decode(errors='backslashreplace')


def _walk(listing: FolderListing, endings: _Endings) -> None:
    """Of a local folder: one `scandir` a folder, and no further call a file but for links."""
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
    """(device, inode) of a folder; ValueError for a link to one of those `above` it."""
    found = entry.stat()
    identity = (found.st_dev, found.st_ino)
    if entry.is_symlink() and identity in above:
        raise ValueError(
            f"'{shown(os.path.join(root, path))}' is a link to '{shown(os.path.realpath(entry.path))}', a folder that it lies "
            'in, so its images would be found again and again: delete the link'
        )
    return identity


def _ask(backend: BaseStorageBackend, listing: FolderListing, endings: _Endings) -> None:
    """Of a folder in another storage, by mmengine's listing."""

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
    """Names end in text files, logs and JSON: ValueError for those that can't."""
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
    """The first three."""
    shortened = ', '.join(f"'{shown(name)}'" for name in sorted(names)[:3])
    return shortened if len(names) <= 3 else f'{shortened}, …'


def _counts(endings: Counter[str]) -> str:
    """The six most frequent endings, with their numbers."""
    frequent = sorted(endings.items(), key=lambda item: (-item[1], item[0]))[:6]
    parts = [f'{shown(ending) or "no ending"} {count}' for ending, count in frequent]
    return ', '.join(parts + ['…'] * (len(endings) > 6))
