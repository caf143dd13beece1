"""How near a text is to a reference translation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Translation:
    """BLEU and chrF of a text against the prompt's `reference`, by sacrebleu, divided by 100: in [0, 1].

    bleu: of one sentence, 13a tokens, effective order, exponential smoothing (Post 2018, arXiv:1804.08771);
    a mean of these over texts is not corpus BLEU.
    chrf: character 6-grams, beta 2 (Popović 2015).

    An empty text has 0; NaN where the prompt has no reference.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        from sacrebleu.metrics.bleu import BLEU
        from sacrebleu.metrics.chrf import CHRF

        metrics: dict[str, Any] = {"bleu": BLEU(effective_order=True), "chrf": CHRF()}
        return {
            column: [
                math.nan
                if text.prompt.reference is None
                else metric.sentence_score(text.text, [text.prompt.reference]).score / 100
                for text in texts
            ]
            for column, metric in metrics.items()
        }
