"""How good the classifiers are: what was measured, on what."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from cfg_lab.metrics.sentiment import HEAD

CARDS = Path(__file__).with_name("cards.json")
"""Written by experiments/metric_cards."""


def card(metric: str) -> dict[str, Any] | None:
    """What is known of a metric's accuracy, by the name of its column.

    Returns:
        {"what": of the classifier, "data": on what, "held_out": {part: {measure, "low", "high", "n"}}}; a
        measure is "accuracy" or "auc", low and high its 95 % interval. None for metrics that count rather
        than judge, and for those nobody measured.
    """
    return _cards().get(metric)


@lru_cache
def _cards() -> dict[str, dict[str, Any]]:
    sentiment = json.loads(HEAD.read_text())
    shown = {"what", "data", "held_out"}
    return {
        **json.loads(CARDS.read_text()),
        "sentiment": {key: value for key, value in sentiment.items() if key in shown},
    }
