"""The types of models that the tests of every architecture decode right (see ARCHITECTURES.md beside this file)."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def tested_types() -> frozenset[str]:
    """Types (`config.model_type`) that are known to be decoded right before their weights are loaded."""
    text = (Path(__file__).parent / "ARCHITECTURES.md").read_text(encoding="utf-8")
    decoded_right = text.split("\n## ")[1]
    return frozenset(
        line.split("|")[1].strip() for line in decoded_right.splitlines() if line.startswith("|")
    )
