"""How many different texts a cell holds, in effect."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from cfg_lab.metrics.jackknife import spread
from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Vendi:
    """Vendi score: the effective number of different texts, by meaning; higher is more varied.

    exp of the Shannon entropy of the eigenvalues of K/n, K the cosine similarities of n texts' embeddings
    (all-MiniLM-L6-v2): 1 where all are equal, n where all are orthogonal (Friedman & Dieng 2023,
    arXiv:2210.02410). It grows with n: compare cells with as many texts.

    vendi: of the samples of each prompt, in [1, samples], given to each of them; NaN for a prompt with one.
    vendi_across: of all texts of the cell, in [1, texts], spread over them by the jackknife; NaN with one
    text.

    Empty texts are embedded like others and are alike.

    Args:
        embedder: gives the embedding function; called when first needed.
    """

    together: ClassVar[bool] = True
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embeddings = self.embedder()([text.text for text in texts])
        prompts = np.array([text.prompt.id for text in texts])
        of_prompt = {prompt: vendi_score(embeddings[prompts == prompt]) for prompt in dict.fromkeys(prompts)}
        return {
            "vendi": [of_prompt[prompt] for prompt in prompts],
            "vendi_across": spread(texts, lambda places: vendi_score(embeddings[places])) if texts else [],
        }


def vendi_score(embeddings: np.ndarray) -> float:
    """Of embeddings [n, d] of length 1; NaN for fewer than two."""
    if len(embeddings) < 2:
        return math.nan
    shares = np.linalg.eigvalsh(embeddings.astype(np.float64) @ embeddings.T / len(embeddings))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))
