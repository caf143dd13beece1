"""Metric: how similar the wording of the texts of a cell (one combination of settings) is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from cfg_lab.metrics.column_info import SHARE, ColumnInfo
from cfg_lab.metrics.jackknife import pseudo_values
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class SelfBleu:
    """Pairwise self-BLEU of the texts of a cell. Higher is less varied.

    self_bleu: mean BLEU of a text against each other sample of its prompt, in [0, 1]. NaN for a prompt with
    one sample.
    self_bleu_across: mean BLEU of all pairs of texts of different prompts, in [0, 1]: high if the model says
    the same for different prompts. One number for the cell, turned into jackknife pseudo-values. NaN for
    fewer than three prompts, because the jackknife leaves out one prompt and needs two others to form pairs.

    BLEU is computed by sacrebleu's sentence BLEU (13a tokens, effective order, exponential smoothing). Two
    equal texts have BLEU 1, and so have two empty texts. A mean over pairs (Shen et al. 2019,
    arXiv:1902.07816) does not depend on the number of samples. The self-BLEU of Zhu et al. (2018,
    arXiv:1802.01886) takes all other texts as references and grows with their number. The computing time
    grows with the square of the number of texts in a cell.
    """

    whole_cell: ClassVar[bool] = True
    columns = MappingProxyType(
        {
            "self_bleu": ColumnInfo(
                meaning="how alike the wording is of a prompt's samples, BLEU",
                better="lower",
                bounds=SHARE,
                role="diversity",
                rank=1,
            ),
            "self_bleu_across": ColumnInfo(
                meaning="how alike the wording is of texts of different prompts, BLEU",
                better="lower",
                bounds=SHARE,
                role="diversity",
                rank=1,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        bleu = _pairwise_bleu([text.text for text in texts])
        prompts = np.array([text.prompt.id for text in texts])
        same_prompt = prompts[:, None] == prompts[None, :]
        other_samples = same_prompt & ~np.eye(len(texts), dtype=bool)

        def across(indices: list[int]) -> float:
            subset = np.ix_(indices, indices)
            return _mean(bleu[subset][~same_prompt[subset]])

        return {
            "self_bleu": [_mean(row[mask]) for row, mask in zip(bleu, other_samples, strict=True)],
            "self_bleu_across": pseudo_values(texts, across) if texts else [],
        }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _pairwise_bleu(texts: Sequence[str]) -> np.ndarray:
    """BLEU of all pairs of texts, [texts, texts], in [0, 1].

    Each entry scores the text of its row, with the text of its column as the only reference.
    """
    from sacrebleu.metrics.bleu import BLEU

    metric: Any = BLEU(effective_order=True)
    bleu = np.eye(len(texts))
    for i, text in enumerate(texts):
        for j, reference in enumerate(texts):
            if i != j:
                equal = text == reference
                bleu[i, j] = 1.0 if equal else metric.sentence_score(text, [reference]).score / 100
    return bleu
