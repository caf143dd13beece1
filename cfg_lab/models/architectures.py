"""Reads the table of the architectures that the tests decode right: ARCHITECTURES.md beside this file."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def known_types() -> frozenset[str]:
    """Types (`config.model_type`) that are known to be decoded right before their weights are loaded."""
    text = (Path(__file__).parent / "ARCHITECTURES.md").read_text(encoding="utf-8")
    lines = [line for line in text.split("\n## ")[1].splitlines() if line.startswith("|")]
    return frozenset(line.split("|")[1].strip() for line in lines[2:])  # without the two heading lines
