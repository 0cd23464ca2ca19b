"""The file name endings by which images are recognised."""

from PIL import Image

#: Formats that Pillow opens but that are not pictures, or that Pillow does not decode itself.
_NO_PICTURES = {
    'BUFR',  # weather measurements: Pillow names the format and decodes nothing
    'GRIB',  # as BUFR
    'HDF5',  # a container of arrays: as BUFR
    'MPEG',  # video: as BUFR
    'WMF',  # vector graphics, which only Windows draws
    'EPS',  # documents, which Ghostscript has to draw
    'FITS',  # astronomical measurements, whose values have no agreed range
    'IPTC',  # records about a picture
}


def image_endings() -> frozenset[str]:
    """Endings of the picture formats that the installed Pillow reads, in lower case and with their dot.

    Formats that a plugin (such as pillow_heif) has registered by the time of the call are included.
    """
    known = Image.registered_extensions()  # imports Pillow's plugins
    pictures = {ending for ending, format_ in known.items() if format_ in Image.OPEN and format_ not in _NO_PICTURES}
    return frozenset(pictures | {'.mpo'})  # Pillow's JPEG plugin opens these
