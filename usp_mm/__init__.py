"""USP (arXiv 2503.06132) for OpenMMLab: one masked-latent pretraining for understanding and generation.

Importing it makes mmpretrain, mmseg and mmagic work on current torch, numpy and diffusers (`usp_mm.compat`) and lets
their registries find this package's types by bare name (`usp_mm.registry`).
"""

from usp_mm import compat
from usp_mm.version import __version__

__all__ = ['__version__']

compat.apply()
