"""What a text cost, so that methods compare at equal compute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Cost:
    """What the models had to do for each text, as if it had been decoded alone.

    forward_tokens: tokens read by the models, contexts and new ones, of all branches and beams.
    gflop: 2 * parameters * tokens read / 1e9, summed over the branches' models (Kaplan et al. 2020,
        arXiv:2001.08361, without the attention's own products, which are small in short contexts).
    negatives_saved: share of the negatives' tokens that a schedule or an adaptive stop spared, in [0, 1]; NaN
        where there is no negative.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "forward_tokens": [float(sum(text.tokens_read)) for text in texts],
            "gflop": [
                2e-9 * sum(n * size for n, size in zip(text.tokens_read, text.parameters, strict=True))
                for text in texts
            ],
            "negatives_saved": [_saved(text) for text in texts],
        }


def _saved(text: Text) -> float:
    if len(text.tokens_read) < 2:
        return math.nan
    return 1 - sum(text.tokens_read[1:]) / sum(text.tokens_read_in_full[1:])
