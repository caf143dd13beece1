"""Metric: the effective number of different texts in a cell (one combination of settings)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from cfg_lab.metrics.column_info import AT_LEAST_1, ENGLISH, ColumnInfo
from cfg_lab.metrics.jackknife import pseudo_values
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Vendi:
    """Vendi score: the effective number of different texts, by meaning. Higher is more varied.

    The score is exp of the Shannon entropy of the eigenvalues of K/n, where K holds the cosine similarities
    of the embeddings of n texts (all-MiniLM-L6-v2). The score is 1 if all texts are equal, and n if all
    embeddings are orthogonal (Friedman & Dieng 2023, arXiv:2210.02410). It grows with n, so compare cells
    with equally many texts.

    vendi: the score of a prompt's samples, in [1, samples]. Each of these samples has the same value. NaN for
    a prompt with one sample.
    vendi_across: the score of all texts of the cell, in [1, texts], turned into jackknife pseudo-values. NaN
    if the cell has one text, or if only one text is left when the jackknife leaves out a prompt.

    Empty texts are embedded like other texts. All empty texts have the same embedding. The embeddings are for
    English: texts in other letters than Latin are left out and get NaN.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
    """

    whole_cell: ClassVar[bool] = True
    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "vendi": ColumnInfo(
                meaning="how many different texts a prompt's samples are in effect, by meaning",
                better="higher",
                bounds=AT_LEAST_1,
                role="diversity",
                rank=2,
                languages=ENGLISH,
            ),
            "vendi_across": ColumnInfo(
                meaning="how many different texts the cell holds in effect, by meaning",
                better="higher",
                bounds=AT_LEAST_1,
                role="diversity",
                rank=2,
                languages=ENGLISH,
            ),
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embeddings = self.embedder()([text.text for text in texts])
        prompts = np.array([text.prompt.id for text in texts])
        by_prompt = {prompt: vendi_score(embeddings[prompts == prompt]) for prompt in dict.fromkeys(prompts)}

        def across(indices: list[int]) -> float:
            return vendi_score(embeddings[indices])

        return {
            "vendi": [by_prompt[prompt] for prompt in prompts],
            "vendi_across": pseudo_values(texts, across) if texts else [],
        }


def vendi_score(embeddings: np.ndarray) -> float:
    """Effective number of different embeddings, in [1, n]. NaN if n is below 2.

    Args:
        embeddings: [n, size], each of norm 1.
    """
    if len(embeddings) < 2:
        return math.nan
    eigenvalues = np.linalg.eigvalsh(embeddings.astype(np.float64) @ embeddings.T / len(embeddings))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))
