"""Cards: the accuracy of metrics that classify texts, measured on texts with known labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cfg_lab.metrics.sentiment import HEAD

CARDS = Path(__file__).with_name("cards.json")
"""Cards by column. Written by experiments/metric_cards."""


def packaged_cards(columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The card of each column of scores: which classifier gives the scores, and how accurate it is.

    The cards are in the order of `columns`.

    Returns:
        {column: {"what": the classifier, "data": the labelled texts, "held_out": {set of texts: {"accuracy"
        or "auc", "low", "high", "n"}}}}. "low" and "high" are the ends of a 95 % interval. A column has no
        card if it classifies nothing (such as a count), or if its accuracy was never measured.
    """
    cards: dict[str, dict[str, Any]] = json.loads(CARDS.read_text(encoding="utf-8"))
    sentiment: dict[str, Any] = json.loads(HEAD.read_text(encoding="utf-8"))
    cards["sentiment"] = {key: sentiment[key] for key in ("what", "data", "held_out")}
    return {column: cards[column] for column in columns if column in cards}
