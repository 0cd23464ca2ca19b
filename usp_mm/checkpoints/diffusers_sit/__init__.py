"""Write a SiT as a diffusers pipeline that brings its own classes.

`sit.py` and `pipeline.py` are copied into the folder, since diffusers has no SiT: they import only torch and diffusers.
"""

from .write import write_sit_pipeline

__all__ = ['write_sit_pipeline']
