"""How alike the wording of the texts of a cell is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from cfg_lab.metrics.jackknife import spread
from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class SelfBleu:
    """Pairwise self-BLEU of the texts of a cell; higher is less varied.

    self_bleu: mean BLEU of a text against each other sample of its prompt, in [0, 1]; NaN for a prompt with
    one sample.
    self_bleu_across: the same against the texts of other prompts: what every prompt gets said. A number of
    the cell in [0, 1], spread over its texts by the jackknife; NaN with one prompt.

    BLEU is sacrebleu's of one sentence (13a tokens, effective order, exponential smoothing); two equal texts
    have 1, empty ones too. A mean over pairs (Shen et al. 2019, arXiv:1902.07816) does not grow with the
    number of samples, as one BLEU with all others as references does (Zhu et al. 2018, arXiv:1802.01886).
    Work grows with the square of a cell's texts.
    """

    together: ClassVar[bool] = True

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        pairs = _bleu([text.text for text in texts])
        prompts = np.array([text.prompt.id for text in texts])
        same = prompts[:, None] == prompts[None, :]
        others = same & ~np.eye(len(texts), dtype=bool)

        def across(places: list[int]) -> float:
            kept = np.ix_(places, places)
            return _mean(pairs[kept][~same[kept]])

        return {
            "self_bleu": [_mean(row[mask]) for row, mask in zip(pairs, others, strict=True)],
            "self_bleu_across": spread(texts, across) if texts else [],
        }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan


def _bleu(texts: Sequence[str]) -> np.ndarray:
    """BLEU [texts, texts] of each text against each as the only reference, in [0, 1]."""
    from sacrebleu.metrics.bleu import BLEU

    metric: Any = BLEU(effective_order=True)
    found = np.eye(len(texts))
    for i, text in enumerate(texts):
        for j, reference in enumerate(texts):
            if i != j:
                equal = text == reference
                found[i, j] = 1.0 if equal else metric.sentence_score(text, [reference]).score / 100
    return found
