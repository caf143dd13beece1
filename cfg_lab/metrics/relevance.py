"""Does a text keep to its prompt?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Relevance:
    """Cosine similarity of a text and its prompt, in [-1, 1]; higher is nearer; NaN for empty texts.

    Embeddings of all-MiniLM-L6-v2, which see the first 256 tokens. A text that repeats its prompt has 1.
    `card("relevance")` has how often a text is nearer to its own prompt than to another.

    Args:
        embedder: gives the embedding function; called when first needed.
    """

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
