"""Find the image files in a folder and decode them to RGB pixels."""

from .decode import DECODING, Decoded, check_header, decode_image, load_decoded, load_image
from .endings import image_endings
from .limit import max_image_pixels
from .scan import FolderListing, find_images, images_below, list_images, log_scan, looked_for, shown
from .titles import named, titled

__all__ = [
    'DECODING',
    'Decoded',
    'FolderListing',
    'check_header',
    'decode_image',
    'find_images',
    'image_endings',
    'images_below',
    'list_images',
    'load_decoded',
    'load_image',
    'log_scan',
    'looked_for',
    'max_image_pixels',
    'named',
    'shown',
    'titled',
]
