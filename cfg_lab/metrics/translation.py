"""Metric: how close a text is to a reference translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cfg_lab.metrics.column_info import SHARE, ColumnInfo
from cfg_lab.metrics.references import best_score
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Translation:
    """BLEU and chrF of a text against the prompt's `reference`, by sacrebleu, divided by 100: in [0, 1].

    bleu: BLEU of one sentence, with 13a tokens, effective order and exponential smoothing (Post 2018,
    arXiv:1804.08771). The mean of this column over texts is not corpus BLEU.
    chrf: character n-grams up to 6, beta 2 (Popović 2015).

    An empty text has the value 0. The values are NaN if the prompt has no reference.
    """

    columns = MappingProxyType(
        {
            "bleu": ColumnInfo(
                meaning="n-grams shared with the reference, BLEU", better="higher", bounds=SHARE
            ),
            "chrf": ColumnInfo(
                meaning="n-grams of letters shared with the reference, chrF", better="higher", bounds=SHARE
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        metrics: dict[str, Any] = {"bleu": BLEU(effective_order=True), "chrf": CHRF()}
        return {
            column: [
                best_score(
                    text,
                    lambda reference, text=text, metric=metric: (
                        metric.sentence_score(text.text, [reference]).score / 100
                    ),
                )
                for text in texts
            ]
            for column, metric in metrics.items()
        }
