"""Model and bfloat16 instructions of this machine's processor, from /proc/cpuinfo."""

import platform
from pathlib import Path

_FILE = Path('/proc/cpuinfo')
#: Instructions of x86 and Arm that multiply bfloat16 numbers, as /proc/cpuinfo names them.
_BFLOAT16 = ('avx512_bf16', 'amx_bf16', 'bf16')


def processor_name() -> str:
    """The processor's model name, or its architecture if /proc/cpuinfo has no model name."""
    return _entry('model name') or platform.machine()


def bfloat16_instructions() -> tuple[str, ...] | None:
    """The bfloat16 instructions that the processor has: empty if none, None if the system does not list its features."""
    flags = _entry('flags') or _entry('Features')
    return None if flags is None else tuple(name for name in _BFLOAT16 if name in flags.split())


def _entry(key: str) -> str | None:
    lines = _FILE.read_text().splitlines() if _FILE.is_file() else []
    return next((text.strip() for name, _, text in (line.partition(':') for line in lines) if name.strip() == key), None)
