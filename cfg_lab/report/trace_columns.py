"""How the page names the numbers of a trace, and how it stores them.

The names of the numbers come from `TRACE_FIELDS` and `DISTRIBUTIONS`. A new field of a trace appears on the
page under its own name, without a change here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS

_LABELS = {"entropy": "entropy of guided", "divergence": "KL(positive\N{DOUBLE VERTICAL LINE}negative)"}
_NATS = frozenset(_LABELS)

CHANGE_BY_GUIDANCE = ("positive", "guided")
"""Guidance changes a token's log-prob from its value in "positive" to its value in "guided"."""


def trace_fields() -> list[dict[str, str]]:
    """Describe each number of a trace for the page: name, label and kind ("log-prob", "nats" or "number")."""
    return [
        {
            "name": name,
            "label": f"{name} log-prob" if name in DISTRIBUTIONS else _LABELS.get(name, name),
            "kind": "log-prob" if name in DISTRIBUTIONS else "nats" if name in _NATS else "number",
        }
        for name in TRACE_FIELDS
    ]


def packed_trace(row: pd.Series[Any]) -> dict[str, list[int | None]]:
    """Return the trace of a text: field -> one number per step. None stands for a step without a number.

    Numbers are whole hundredths. Log-probs are never positive, so they are stored without their sign.
    """
    return {
        name: _hundredths(row[f"trace_{name}"], sign=-1 if name in DISTRIBUTIONS else 1)
        for name in TRACE_FIELDS
        if f"trace_{name}" in row.index
    }


def length(values: Any) -> int:
    """Return the length of a list or array, and 0 for anything else."""
    return len(values) if hasattr(values, "__len__") and not isinstance(values, str) else 0


def _hundredths(values: Any, sign: int) -> list[int | None]:
    if not length(values):
        return []
    scaled = sign * 100 * np.asarray(values, float)
    return [round(value) if np.isfinite(value) else None for value in scaled.tolist()]
