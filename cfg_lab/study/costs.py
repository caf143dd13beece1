"""Counts the cost of decoding: time, work and memory of one run of a sweep with one model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cfg_lab.study.formats import count, three_digits

if TYPE_CHECKING:  # costs are read without torch
    from cfg_lab.decoding.completion import Completion


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(kw_only=True)
class DecodingCost:
    """Counts the cost of decoding with one model, while decoding runs.

    If a run is interrupted, its unfinished texts count in `seconds`, `steps` and `rows` only.

    Attributes:
        model: name of the model.
        device: device that the model ran on, such as "cpu".
        command: command line of the sweep, "" if unknown.
        started: start of decoding, ISO 8601, UTC.
        texts: number of finished texts.
        tokens: number of new tokens in the finished texts.
        seconds: time since the start. Includes prefill and writing files.
        steps: number of decoder steps. Each is one forward pass of a batch.
        rows: number of rows in the batches of all steps. A row that several texts share counts once.
        negative_rows_saved: rows that the finished texts did not need because a schedule or an early stop
            ended their negative branches.
        peak_memory: largest use of memory, in bytes. On CPU it is the size of the process, on CUDA the size
            of the allocated memory.
        clock: start of decoding on the clock of `time.monotonic`, in seconds. Not stored.
    """

    model: str
    device: str
    command: str = ""
    started: str = field(default_factory=_now)
    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0
    steps: int = 0
    rows: int = 0
    negative_rows_saved: int = 0
    peak_memory: int = 0
    clock: float = field(default_factory=time.monotonic, repr=False)

    def add(self, completion: Completion) -> None:
        """Count a finished text."""
        self.texts += 1
        self.tokens += len(completion.tokens)
        self.negative_rows_saved += sum(completion.tokens_read_in_full[1:]) - sum(completion.tokens_read[1:])

    def values(self, *, steps: int, rows: int, peak_memory: int) -> dict[str, Any]:
        """The counts so far as plain values, one for each of COST_FIELDS."""
        self.steps, self.rows, self.peak_memory = steps, rows, peak_memory
        self.seconds = round(time.monotonic() - self.clock, 3)
        return {name: getattr(self, name) for name in COST_FIELDS}


COST_FIELDS = tuple(field.name for field in fields(DecodingCost) if field.name != "clock")
"""Names of the attributes of a `DecodingCost` that are stored."""


def total(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Sums and rates over several costs. The result is empty if nothing was decoded.

    Args:
        costs: mappings with the keys COST_FIELDS, as `Store.costs` returns them.

    Returns:
        The sums of texts, tokens, seconds, steps, rows and negative_rows_saved; the rates
        tokens_per_second and rows_per_step; and the largest peak_memory.
    """
    summed = ("texts", "tokens", "seconds", "steps", "rows", "negative_rows_saved")
    sums = {name: sum(cost[name] for cost in costs) for name in summed}
    if not sums["steps"]:
        return {}
    return {
        **sums,
        "tokens_per_second": sums["tokens"] / max(sums["seconds"], 1e-3),
        "rows_per_step": sums["rows"] / sums["steps"],
        "peak_memory": max(cost["peak_memory"] for cost in costs),
    }


def in_words(costs: Sequence[Mapping[str, Any]]) -> str:
    """Several costs as one line: "320 texts, 19,203 tokens in 84 s, 229 tokens/s, …"."""
    if not (sums := total(costs)):
        return "nothing was decoded"
    texts, tokens = count(int(sums["texts"]), "text"), count(int(sums["tokens"]), "token")
    phrases = [
        f"{texts}, {tokens} in {sums['seconds']:,.0f} s",
        f"{three_digits(sums['tokens_per_second'])} tokens/s",
        f"{three_digits(sums['rows_per_step'])} rows per step",
        f"{sums['negative_rows_saved']:,} rows of negatives saved" if sums["negative_rows_saved"] else "",
        f"peak memory {sums['peak_memory'] / 1e9:.2f} GB",
    ]
    return ", ".join(filter(None, phrases))
