"""Any text classifier of the Hugging Face hub as a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cfg_lab.metrics.column_info import SHARE, ColumnInfo, Direction
from cfg_lab.metrics.text import Text

Classify = Callable[[Sequence[str]], list[float]]
"""From texts to the probability of a label, one per text."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """Probability of one label of a `text-classification` model, in [0, 1]. NaN for empty texts.

    Args:
        model: hub id or folder.
        label: the label, as the model's config writes it.
        loader: takes `model` and `label`, and returns the function that classifies texts.
        column: name of the column of scores.
        better: "higher" if texts should have the label, "lower" if they should not, None if neither is good.
            If `better` is not None, the page shows the column as an aim of guidance (see `ColumnInfo`).
    """

    model: str
    label: str
    loader: Callable[[str, str], Classify] = field(repr=False)
    column: str = "classifier"
    better: Direction | None = field(default=None, repr=False)

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        meaning = f"probability of the label {self.label!r} by the classifier {self.model}"
        return {
            self.column: ColumnInfo(
                meaning=meaning, better=self.better, bounds=SHARE, languages="those of the classifier"
            )
        }

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        classify = _load_classify(self.loader, self.model, self.label)
        not_empty = [text.text for text in texts if text.text.strip()]
        probabilities = iter(classify(not_empty) if not_empty else [])
        return {self.column: [next(probabilities) if text.text.strip() else math.nan for text in texts]}


@lru_cache(maxsize=4)
def _load_classify(loader: Callable[[str, str], Classify], model: str, label: str) -> Classify:
    return loader(model, label)
