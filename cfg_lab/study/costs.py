"""What decoding took: time, work and memory of one run of a sweep on one model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cfg_lab.study.formats import count, short

if TYPE_CHECKING:  # costs are read without torch
    from cfg_lab.decoding.completion import Completion


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


@dataclass(kw_only=True)
class DecodingCost:
    """Counts up while a model decodes. What an interrupted run had not finished counts as time only.

    Attributes:
        model, device: what decoded, and on what.
        command: the line that asked for it, "" where it is not known.
        started: ISO 8601, UTC.
        texts: finished.
        tokens: of these texts, new ones.
        seconds: since it started, prefilling and the writing of shards included.
        steps: of the decoder, each one forward of a batch.
        rows: of all these batches; a row that several texts share counts once.
        negative_rows_saved: rows of negatives that schedules and adaptive stops spared these texts.
        peak_memory: bytes; the largest the process has been (CPU) or has allocated on the device (CUDA).
        clock: when it started, of time.monotonic.
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

    def record(self, *, steps: int, rows: int, peak_memory: int) -> dict[str, Any]:
        """What has been counted, as plain values under the attributes' names, the clock apart."""
        self.steps, self.rows, self.peak_memory = steps, rows, peak_memory
        self.seconds = round(time.monotonic() - self.clock, 3)
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(field.name for field in fields(DecodingCost) if field.name != "clock")
"""Of a record."""


def total(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Records of `DecodingCost` together, with their rates; nothing where nothing was decoded."""
    counted = ("texts", "tokens", "seconds", "steps", "rows", "negative_rows_saved")
    sums = {name: sum(cost[name] for cost in costs) for name in counted}
    if not sums["steps"]:
        return {}
    return {
        **sums,
        "tokens_per_second": sums["tokens"] / max(sums["seconds"], 1e-3),
        "rows_per_step": sums["rows"] / sums["steps"],
        "peak_memory": max(cost["peak_memory"] for cost in costs),
    }


def in_words(costs: Sequence[Mapping[str, Any]]) -> str:
    """Records together: "320 texts, 19,203 tokens in 84 s, 229 tokens/s, …"."""
    if not (sums := total(costs)):
        return "nothing was decoded"
    texts, tokens = count(int(sums["texts"]), "text"), count(int(sums["tokens"]), "token")
    parts = [
        f"{texts}, {tokens} in {sums['seconds']:,.0f} s",
        f"{short(sums['tokens_per_second'])} tokens/s",
        f"{short(sums['rows_per_step'])} rows a step",
        f"{sums['negative_rows_saved']:,} rows of negatives saved" if sums["negative_rows_saved"] else "",
        f"peak memory {sums['peak_memory'] / 1e9:.2f} GB",
    ]
    return ", ".join(filter(None, parts))
