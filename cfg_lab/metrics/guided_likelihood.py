"""How likely a text is to the guided distribution it was drawn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class GuidedLikelihood:
    """Guided log-likelihood, a token.

    guided_log_prob: mean log-prob of the new tokens under the guided, normalised distribution, nats, at most
    0; before temperature and truncation, so it compares across samplings. Nearer to 0 is surer of itself,
    which says nothing of quality. At scale 1 it is -log of `perplexity`.

    A stop token is not part of the text and does not count. NaN for empty texts.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"guided_log_prob": [_mean(text.guided_log_probs) for text in texts]}


def _mean(log_probs: Sequence[float]) -> float:
    return sum(log_probs) / len(log_probs) if log_probs else math.nan
