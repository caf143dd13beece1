"""Any text classifier of the Hugging Face hub as a metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Classifier:
    """Probability of one label of a `text-classification` model, in [0, 1]; NaN for empty texts.

    Args:
        model: hub id or folder.
        label: the label, as the model's config writes it.
        loader: (model, label) -> function from texts to probabilities.
        column: what the table calls it.
    """

    model: str
    label: str
    loader: Callable[[str, str], Callable[[Sequence[str]], list[float]]] = field(repr=False)
    column: str = "classifier"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        classify = _loaded(self.loader, self.model, self.label)
        written = [text.text for text in texts if text.text.strip()]
        found = iter(classify(written) if written else [])
        return {self.column: [next(found) if text.text.strip() else math.nan for text in texts]}


@lru_cache(maxsize=4)
def _loaded(loader: Callable[[str, str], Any], model: str, label: str) -> Any:
    return loader(model, label)
