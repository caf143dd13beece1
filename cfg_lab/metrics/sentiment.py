"""Metric: whether a text has positive sentiment."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from cfg_lab.metrics.column_info import ENGLISH, SHARE, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text

HEAD = Path(__file__).with_name("sentiment_head.json")
"""The classifier's weights, training data and held-out accuracy; made by experiments/sentiment_head."""


@dataclass(frozen=True, kw_only=True)
class Sentiment:
    """Probability that an English text has positive sentiment, in [0, 1].

    NaN for empty texts and for texts in other letters than Latin.

    The classifier is a logistic regression on sentence embeddings (all-MiniLM-L6-v2). It was trained on human
    ratings of movie and product reviews, newspaper sentences and tweets. Its accuracy is in
    sentiment_head.json.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
    """

    version: ClassVar[int] = 2  # raise it when sentiment_head.json changes
    columns = MappingProxyType(
        {
            "sentiment": ColumnInfo(
                meaning="probability that the text is positive in tone, by a classifier",
                better="higher",
                bounds=SHARE,
                languages=ENGLISH,
            )
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        weights, bias = _load_head()
        embed = _load_embedder(self.embedder)
        not_empty = [i for i, text in enumerate(texts) if text.text.strip()]
        scores = [math.nan] * len(texts)
        if not_empty:
            logits = embed([texts[i].text for i in not_empty]) @ weights + bias
            for i, logit in zip(not_empty, logits.tolist(), strict=True):
                scores[i] = 1 / (1 + math.exp(-logit))
        return {"sentiment": scores}


@lru_cache
def _load_head() -> tuple[np.ndarray, float]:
    """Load the weights [384] and the bias of the regression that turns an embedding into a sentiment."""
    head: dict[str, Any] = json.loads(HEAD.read_text(encoding="utf-8"))
    return np.array(head["weights"], np.float32), float(head["bias"])


@lru_cache(maxsize=2)
def _load_embedder(
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]],
) -> Callable[[Sequence[str]], np.ndarray]:
    return embedder()
