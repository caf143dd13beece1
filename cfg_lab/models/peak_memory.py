"""How much memory was needed at most."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """Bytes: what the process has allocated on a CUDA device at most, elsewhere its largest resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count a parent that was larger
        (line,) = (one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    import resource  # not on every system

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest
