"""USP (arXiv 2503.06132) for OpenMMLab: one masked-latent pretraining for understanding and generation.

Importing this package makes mmpretrain, mmseg and mmagic work on current torch, numpy and diffusers (`usp_mm.compat`), lets
their registries find this package's types by bare name (`usp_mm.compat.locations`), and shortens the time that threads spin
while they wait (`usp_mm.runtime.threads`; only before torch is imported). None of these libraries is imported here: each is
patched when it is first imported. Modules that moved are still found under their older names (`usp_mm.renaming.modules`).
"""

from usp_mm.runtime.threads import wait_briefly

wait_briefly()  # before torch is imported

from typing import TYPE_CHECKING  # noqa: E402

from usp_mm import compat  # noqa: E402
from usp_mm.renaming.lazy import imported_on_use  # noqa: E402
from usp_mm.renaming.modules import find_moved_modules  # noqa: E402
from usp_mm.version import __version__  # noqa: E402

if TYPE_CHECKING:
    from usp_mm.apis.pretrained import from_pretrained

__all__ = ['__version__', 'from_pretrained']

__getattr__ = imported_on_use(__name__, {'apis.pretrained': ['from_pretrained']})

compat.apply()
find_moved_modules()
