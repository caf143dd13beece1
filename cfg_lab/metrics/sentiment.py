"""Is a text positive?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cfg_lab.metrics.text import Text

HEAD = Path(__file__).with_name("sentiment_head.json")
"""Weights, what they were trained on, and their held-out accuracy; made by experiments/sentiment_head."""


@dataclass(frozen=True)
class Sentiment:
    """Probability that a text is of positive sentiment, in [0, 1]; NaN for empty texts.

    A logistic regression on sentence embeddings (all-MiniLM-L6-v2), trained on human ratings of movie and
    product reviews, newspaper sentences and tweets. Its accuracy on held-out texts stands in HEAD.

    Args:
        embedder: gives the embedding function; called when first needed.
    """

    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    head: str = "minilm-logistic-1"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        weights, bias = _head()
        embed = _loaded(self.embedder)
        written = [i for i, text in enumerate(texts) if text.text.strip()]
        scores = [math.nan] * len(texts)
        if written:
            logits = embed([texts[i].text for i in written]) @ weights + bias
            for i, logit in zip(written, logits.tolist(), strict=True):
                scores[i] = 1 / (1 + math.exp(-logit))
        return {"sentiment": scores}


@lru_cache
def _head() -> tuple[np.ndarray, float]:
    head: dict[str, Any] = json.loads(HEAD.read_text())
    return np.array(head["weights"], np.float32), float(head["bias"])


@lru_cache(maxsize=2)
def _loaded(embedder: Callable[[], Any]) -> Any:
    return embedder()
