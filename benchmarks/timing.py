"""Timing of several contenders in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any


def alternating(
    contenders: Mapping[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Median seconds of each function. They run alternately, and the first run of each is not counted.

    Args:
        contenders: name -> function.
        repeats: number of runs of each function that are counted.
        clock: returns seconds. `time.process_time` counts only the time of the processor.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, run in contenders.items():
            started = clock()
            run()
            if repeat:
                taken[name].append(clock() - started)
    return {name: statistics.median(times) for name, times in taken.items()}
