"""Which pictures of a folder a training uses, and why the others are left out."""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from usp_mm.datasets.folder import scan_image_folder
from usp_mm.images import list_images, looked_for, shown

#: A picture whose shorter side has fewer pixels than this would have to be enlarged more than twofold to 32 pixels.
SMALLEST = 16
#: Reasons for which a picture is left out.
OTHER, BROKEN, SMALL, BESIDE = 'not a picture', 'broken file', f'smaller than {SMALLEST} pixels', 'beside the class folders'


@dataclass(frozen=True)
class Picture:
    """A picture: path relative to the folder, class number, and width and height as stored, in pixels."""

    path: str
    label: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Scan:
    """What is in a folder.

    Attributes:
        root: The folder.
        found: Number of files, hidden ones included.
        pictures: Those that can be used.
        classes: Their names; one for a flat folder, its own name.
        left_out: Reason -> files, relative to the folder.
        has_classes: Whether they are sub-folders.
        digest: SHA-256 of the names, sizes and dates of all files with a picture's ending.
    """

    root: Path
    found: int
    pictures: list[Picture]
    classes: tuple[str, ...]
    left_out: dict[str, list[str]]
    has_classes: bool
    digest: str

    @property
    def shorter_side(self) -> int:
        """Median of the pictures' shorter sides, in pixels."""
        return int(statistics.median(min(picture.size) for picture in self.pictures))

    @property
    def megapixels(self) -> float:
        """Size of all pictures together, in millions of pixels."""
        return sum(width * height for width, height in (picture.size for picture in self.pictures)) / 1e6

    def name_in_class(self, picture: Picture) -> str:
        """'CLASS/…/NAME.png', the name of a picture's copy."""
        flat = '' if self.has_classes else f'{self.classes[0]}/'
        return f'{flat}{picture.path}.png'

    def lines(self) -> Iterator[str]:
        """Describe in lines what was found."""
        per_class = Counter(picture.label for picture in self.pictures)
        left = self.found - len(self.pictures)
        numbers = {reason: len(files) for reason, files in self.left_out.items() if reason != OTHER}
        numbers[OTHER] = left - sum(numbers.values())  # whose names are not noted one by one
        found, used = counted(self.found, 'file'), counted(len(self.pictures), 'picture')
        yield f"'{self.root}': {found} found, {used} used, {counted(left, 'file')} left out"
        for reason, files in self.left_out.items():
            yield f'  left out, {reason}: {numbers[reason]:,} ({some(files)})'
        if len(self.classes) > 1:
            counts = ', '.join(f'{name} {per_class[label]:,}' for label, name in list(enumerate(self.classes))[:12])
            yield f'  {len(self.classes):,} classes: {counts}{", …" * (len(self.classes) > 12)}'
        else:
            yield f"  one class, '{self.classes[0]}': no linear probe, and samples without guidance"


def counted(number: int, what: str) -> str:
    """'1 file', '1,234 files'."""
    return f'{number:,} {what}' + 's' * (number != 1)


def some(files: Sequence[str]) -> str:
    """The first three names."""
    return ', '.join(map(shown, files[:3])) + ', …' * (len(files) > 3)


def scan_pictures(root: Path, with_label: bool | None = None) -> Scan:
    """Find the pictures in a folder and read the head of each file.

    Sub-folders are classes, as in `scan_image_folder`; a sub-folder without a usable picture is no class. A flat folder is
    one class.

    Args:
        root: The folder.
        with_label: Whether sub-folders are classes; None leaves it to the folder's contents.

    Raises:
        FileNotFoundError: The folder has no image.
        ValueError: Fewer than four pictures can be used, or the folder can be read in two ways.
    """
    listing = list_images(root)
    files, has_classes = _classes_of(root, with_label)
    left_out = {
        OTHER: [] if not listing.others else [f'{n} × {end or "no ending"}' for end, n in listing.others.items()],
        'hidden': listing.hidden, 'linked to nothing': listing.dangling, 'no regular file': listing.special,
        BESIDE: sorted(set(listing.images) - set(files)), BROKEN: [], SMALL: [],
    }  # fmt: skip
    with ThreadPoolExecutor() as pool:
        sizes = dict(zip(files, pool.map(lambda path: _size(root / path), files), strict=True))
    for path, size in sizes.items():
        if size is None or min(size) < SMALLEST:
            left_out[BROKEN if size is None else SMALL].append(path)
    usable = {path: size for path, size in sizes.items() if size is not None and min(size) >= SMALLEST}
    classes = tuple(sorted({files[path] for path in usable}))
    if len(usable) < 4:
        raise ValueError(
            f"'{root}' has {counted(len(usable), 'picture')} that can be used, and at least 4 are needed: {looked_for()}; "
            + '; '.join(f'{reason}: {some(names)}' for reason, names in left_out.items() if names)
        )
    pictures = [Picture(path, classes.index(files[path]), size) for path, size in usable.items()]
    left_out = {reason: names for reason, names in left_out.items() if names}
    digest = _listing_digest(root, listing.images)
    return Scan(root, listing.found, pictures, classes, left_out, has_classes, digest)


def _classes_of(root: Path, with_label: bool | None) -> tuple[dict[str, str], bool]:
    """Picture -> name of its class, and whether the classes are sub-folders."""
    scan = scan_image_folder(str(root), with_label=with_label)
    if scan.labels is None or scan.classes is None:
        return dict.fromkeys(scan.paths, root.resolve().name), False
    return {path: scan.classes[label] for path, label in zip(scan.paths, scan.labels, strict=True)}, True


def _size(path: Path) -> tuple[int, int] | None:
    """Width and height by the head of a file; None if it is no image."""
    try:
        with Image.open(path) as image:
            return image.size
    except Exception:  # Pillow's plugins raise OSError, SyntaxError, struct.error, DecompressionBombError, ...
        return None


def _listing_digest(root: Path, files: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for path in files:
        found = (root / path).stat()
        digest.update(f'{path}\0{found.st_size}\0{found.st_mtime_ns}\0'.encode())
    return digest.hexdigest()
