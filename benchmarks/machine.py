"""The machine that a benchmark runs on."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor() -> str:
    """Name of the processor."""
    information = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", information.read_text()) if information.exists() else []
    return names[0] if names else platform.processor() or platform.machine()
