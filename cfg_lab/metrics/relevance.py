"""Metric: how close a text is to its prompt in meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from cfg_lab.metrics.column_info import COSINE, ENGLISH, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Relevance:
    """Cosine similarity of an English text and its prompt, in [-1, 1].

    NaN for empty texts, and if the text or the prompt is in other letters than Latin.

    The embeddings are those of all-MiniLM-L6-v2, which reads the first 256 tokens. A text that repeats its
    prompt has similarity 1. How often a text is nearer to its own prompt than to another prompt is in
    cards.json.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "relevance": ColumnInfo(
                meaning="how near the text is in meaning to its prompt, cosine of embeddings",
                better="higher",
                bounds=COSINE,
                role="relevance",
                languages=ENGLISH,
            )
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)

    @latin_only(lambda text: (text.text, text.prompt.text))
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        products = embed([text.text for text in texts]) * embed([text.prompt.text for text in texts])
        return {
            "relevance": [
                float(product.sum()) if text.text.strip() else math.nan
                for text, product in zip(texts, products, strict=True)
            ]
        }
