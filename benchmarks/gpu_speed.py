"""The speed of decoding on a device: the lab against transformers, in one run, in turns.

Every number is a median. All contexts of a measurement have equal lengths, so transformers needs no padding.
"""

from __future__ import annotations

import gc
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from benchmarks.gpu_limits import Limits, seconds_of, share_of_limit
from benchmarks.gpu_models import (
    SCALES,
    Size,
    contexts,
    free_memory,
    guided_requests,
    make_decoder,
    plain_requests,
)
from benchmarks.gpu_peers import Contender, ContinuousBatching, Transformers
from benchmarks.gpu_report import GRID, Numbers
from cfg_lab.decoding.request import Request
from cfg_lab.models import LanguageModel

_STEPS_BEFORE = 4
"""Number of the first steps of a text whose time is not counted: they contain and follow the prefill."""


def in_turns(contenders: Mapping[str, Callable[[], float]], repeats: int, deadline: float) -> Numbers:
    """Run each contender, then all again, until the deadline.

    Each runs at least once, unless the deadline has passed before. Its first run is a warm-up and does not
    count if there is another. A contender that fails is left out from then on.

    Args:
        repeats: largest number of runs of a contender after its first.
        deadline: moment of `time.monotonic` after which no run begins.

    Returns:
        name -> {"seconds": median, "first_seconds", "runs"}, or {"error": its message}.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    errors: dict[str, str] = {}
    for _ in range(repeats + 1):
        for name, run in contenders.items():
            if name in errors:
                continue
            if time.monotonic() > deadline:
                if not taken[name]:
                    errors[name] = "not run: the time was up"
                continue
            try:
                taken[name].append(run())
            except Exception as error:  # a contender that fails does not stop the others
                errors[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
                traceback.print_exc()
                gc.collect()
    return {
        name: {"error": errors[name]}
        if name in errors
        else {
            "seconds": statistics.median(seconds[1:] or seconds),
            "first_seconds": seconds[0],
            "runs": len(seconds),
        }
        for name, seconds in taken.items()
    }


class Lab:
    """Decodes requests by the lab. Each call is one run.

    Attributes:
        rows: mean number of rows of a step of the last run.
        step_seconds: mean seconds of a step of the last run, without the first steps.
        first_start_seconds: seconds of the first run beyond those of its steps: for prefill, and on CUDA for
            the capture of graphs. None before the first run.
    """

    def __init__(self, model: LanguageModel, requests: Sequence[Request], max_rows: int) -> None:
        self.model, self.requests = model, requests
        self.decoder = make_decoder(model, max_rows)
        self.rows = self.step_seconds = 0.0
        self.first_start_seconds: float | None = None
        self.texts = len(requests)

    def __call__(self) -> float:
        moments: list[float] = []
        rows, steps = self.decoder.rows, self.decoder.steps

        def on_step(new_tokens: int) -> None:
            moments.append(time.perf_counter())

        seconds = seconds_of(lambda: list(self.decoder.decode(self.requests, on_step)), self.model.device)
        self.rows = (self.decoder.rows - rows) / (self.decoder.steps - steps)
        first = min(_STEPS_BEFORE, len(moments) // 2)
        self.step_seconds = (moments[-1] - moments[first]) / (len(moments) - 1 - first)
        if self.first_start_seconds is None:
            self.first_start_seconds = max(0.0, seconds - len(moments) * self.step_seconds)
        return seconds


def measure_speed(
    model: LanguageModel, size: Size, limits: Limits, deadline: float, save: Callable[[Numbers], None]
) -> Numbers:
    """Measure one stream, 64 rows, the grid and many rows.

    Args:
        deadline: moment of `time.monotonic` after which nothing more is begun.
        save: called with the numbers so far after each measurement.

    Returns:
        parameters: number of parameters. measurements: name -> {"contenders": see `in_turns`, with tokens per
        second, and for the lab with the limits of a step; "ratios": see `_ratios`}. On CUDA also
        capture_seconds: the sum of `first_start_seconds` of all runs of the lab.
    """
    module, new = model.module, size.new_tokens
    positives, negatives, others = (
        contexts(size.many_rows, size.context, model.vocab_size, seed) for seed in (11, 12, 13)
    )

    def guided(pairs: int, scales: Sequence[float] = (1.5,)) -> Lab:
        requests = guided_requests(positives[:pairs], negatives[:pairs], scales, new)
        return Lab(model, requests, 2 * len(requests))

    def plain(rows: int) -> Lab:
        return Lab(model, plain_requests(others[:rows], new), max(2, rows))

    def peer(pairs: int, scales: Sequence[float], batches: int | None = None) -> Transformers:
        return Transformers(module, positives[:pairs], negatives[:pairs], new, scales, batches)

    # Name -> (share of the time that is left, contenders). They are made when it is their turn, then freed.
    measurements: dict[str, tuple[float, Callable[[], dict[str, Contender]]]] = {
        "one stream": (
            0.35,
            lambda: {
                "lab guided": guided(1),
                "lab plain": plain(1),
                "transformers guided": peer(1, [1.5]),
                "transformers plain": peer(1, [1.0]),
            },
        ),
        "64 rows": (0.1, lambda: {"lab guided": guided(32)}),
        GRID: (
            0.5,
            lambda: {"lab guided": guided(8, SCALES), "transformers guided": peer(8, SCALES, batches=2)},
        ),
        f"{size.many_rows} rows": (
            1,
            lambda: {
                "lab guided": guided(size.many_rows // 2),
                "lab plain": plain(size.many_rows),
                "transformers generate_batch": ContinuousBatching(module, others, new),
            },
        ),
    }
    numbers: Numbers = {"parameters": model.parameters, "measurements": {}}
    capture = 0.0
    for name, (share, make) in measurements.items():
        now = time.monotonic()
        contenders = make()
        results = in_turns(contenders, size.repeats, now + share * (deadline - now))
        for contender, result in results.items():
            run = contenders[contender]
            if "seconds" in result:
                result["tokens_s"] = run.texts * new / result["seconds"]
                if isinstance(run, Lab):
                    result |= {"rows": run.rows, "step_ms": 1e3 * run.step_seconds}
                    result |= share_of_limit(
                        module, limits, run.rows, size.context + new / 2, run.step_seconds
                    )
                    capture += run.first_start_seconds or 0
        numbers["measurements"][name] = {"contenders": results, "ratios": _ratios(results)}
        if model.device.type == "cuda":
            numbers["capture_seconds"] = capture
        save(numbers)
        del contenders
        free_memory(model.device)
    return numbers


def _ratios(results: Numbers) -> Numbers:
    """How many times faster the lab is than transformers, and what guidance costs; what was measured."""
    pairs = {
        "guided_speedup": ("transformers guided", "lab guided"),
        "plain_speedup": ("transformers plain", "lab plain"),
        "continuous_batching_speedup": ("transformers generate_batch", "lab plain"),
        "cost_of_guidance": ("lab guided", "lab plain"),
    }
    seconds = {name: result["seconds"] for name, result in results.items() if "seconds" in result}
    return {
        ratio: seconds[slower] / seconds[faster]
        for ratio, (slower, faster) in pairs.items()
        if slower in seconds and faster in seconds
    }
