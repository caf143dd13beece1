"""Metric: how close a text is to its prompt in meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from cfg_lab.metrics.column_info import COSINE, ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """Cosine similarity of a text and its prompt, in [-1, 1]. NaN for empty texts.

    The embeddings are those of all-MiniLM-L6-v2, which reads the first 256 tokens. A text that repeats its
    prompt has similarity 1. How often a text is nearer to its own prompt than to another prompt is in
    cards.json.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
    """

    columns = MappingProxyType(
        {
            "relevance": ColumnInfo(
                meaning="how near the text is in meaning to its prompt, cosine of embeddings",
                better="higher",
                bounds=COSINE,
                role="relevance",
            )
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        products = embed([text.text for text in texts]) * embed([text.prompt.text for text in texts])
        return {
            "relevance": [
                float(product.sum()) if text.text.strip() else math.nan
                for text, product in zip(texts, products, strict=True)
            ]
        }
