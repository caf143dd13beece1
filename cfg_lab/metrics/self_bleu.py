"""Metric: how similar the wording of the texts of a cell (one combination of settings) is."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from cfg_lab.metrics.bleu import load_bleu
from cfg_lab.metrics.column_info import ANY_LANGUAGE, SHARE, ColumnInfo
from cfg_lab.metrics.jackknife import pseudo_values
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class SelfBleu:
    """Pairwise self-BLEU of the texts of a cell. Higher is less varied.

    self_bleu: mean BLEU of a text against each other sample of its prompt, in [0, 1]. NaN for a prompt with
    one sample.
    self_bleu_across: mean BLEU of all pairs of texts of different prompts, in [0, 1]: high if the model says
    the same for different prompts. Prompts with the same text and system message count as one prompt. One
    number for the cell, turned into jackknife pseudo-values. NaN for fewer than three prompts, because the
    jackknife leaves out one prompt and needs two others to form pairs.

    BLEU is computed by sacrebleu's sentence BLEU (effective order, exponential smoothing). Two equal texts
    have BLEU 1, and so have two empty texts. A mean over pairs (Shen et al. 2019, arXiv:1902.07816) does not
    depend on the number of samples. The self-BLEU of Zhu et al. (2018, arXiv:1802.01886) takes all other
    texts as references and grows with their number. The computing time grows with the square of the number of
    texts in a cell.

    Args:
        tokenize: how BLEU divides texts into tokens, as in `Translation`. "auto" decides for each pair by the
            second text.
    """

    whole_cell: ClassVar[bool] = True
    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "self_bleu": ColumnInfo(
                meaning="how alike the wording is of a prompt's samples, BLEU",
                better="lower",
                bounds=SHARE,
                role="diversity",
                rank=1,
                languages=ANY_LANGUAGE,
            ),
            "self_bleu_across": ColumnInfo(
                meaning="how alike the wording is of texts of different prompts, BLEU",
                better="lower",
                bounds=SHARE,
                role="diversity",
                rank=1,
                languages=ANY_LANGUAGE,
            ),
        }
    )

    tokenize: str = "auto"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        bleu = _pairwise_bleu([text.text for text in texts], load_bleu(self.tokenize))
        ids = [text.prompt.id for text in texts]
        other_samples = _equal(ids) & ~np.eye(len(texts), dtype=bool)
        # Duplicates of a prompt have equal texts, because they have the same sampling noise.
        same_prompt = _equal([text.distinct_prompt for text in texts])

        def across(indices: list[int]) -> float:
            subset = np.ix_(indices, indices)
            return _mean(bleu[subset][~same_prompt[subset]])

        return {
            "self_bleu": [_mean(row[mask]) for row, mask in zip(bleu, other_samples, strict=True)],
            "self_bleu_across": pseudo_values(texts, across) if texts else [],
        }


def _equal(values: Sequence[Hashable]) -> np.ndarray:
    """Whether two values are equal, for all pairs of values, [values, values]."""
    numbers = {value: number for number, value in enumerate(values)}
    column = np.array([numbers[value] for value in values])[:, None]
    return column == column.T


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _pairwise_bleu(texts: Sequence[str], bleu: Callable[[str, str], float]) -> np.ndarray:
    """BLEU of all pairs of texts, [texts, texts], in [0, 1].

    Each entry scores the text of its row, with the text of its column as the only reference.
    """
    scores = np.eye(len(texts))
    for i, text in enumerate(texts):
        for j, reference in enumerate(texts):
            if i != j:
                scores[i, j] = 1.0 if text == reference else bleu(text, reference)
    return scores
