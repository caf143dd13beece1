"""The largest amount of memory that was in use."""

from __future__ import annotations

import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> int:
    """Largest memory use of this process so far, in bytes.

    On a CUDA device: the memory that torch allocated on all visible GPUs, because a model can be spread over
    them. It is the sum of the largest memory of each. On other devices: the resident memory.
    """
    if device.type == "cuda":
        return sum(map(torch.cuda.max_memory_allocated, range(torch.cuda.device_count())))
    status = Path("/proc/self/status")
    if status.exists():  # after a fork, getrusage would report the peak of a larger parent process
        (line,) = (
            line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:")
        )
        return 1024 * int(line.split()[1])
    import resource  # does not exist on every system

    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else 1024 * largest  # bytes on macOS, else KiB
