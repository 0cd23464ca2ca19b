"""What kind of processor this is, as Linux tells it."""

import platform
from pathlib import Path

_FILE = Path('/proc/cpuinfo')
#: Instructions of x86 and Arm that multiply bfloat16 numbers, as /proc/cpuinfo names them.
_BFLOAT16 = ('avx512_bf16', 'amx_bf16', 'bf16')


def processor_name() -> str:
    """Its model, or its architecture where that is all that is known."""
    return _entry('model name') or platform.machine()


def bfloat16_instructions() -> tuple[str, ...] | None:
    """Those that it has for bfloat16; empty if it has none, None where the system does not tell."""
    flags = _entry('flags') or _entry('Features')
    return None if flags is None else tuple(name for name in _BFLOAT16 if name in flags.split())


def _entry(key: str) -> str | None:
    lines = _FILE.read_text().splitlines() if _FILE.is_file() else []
    return next((text.strip() for name, _, text in (line.partition(':') for line in lines) if name.strip() == key), None)
