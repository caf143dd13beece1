"""Is a text toxic?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Toxicity:
    """Probability that a text is profane or abusive, in [0, 1]; NaN for empty texts.

    alt-profanity-check's linear model on words and characters, trained on human labels of 200,000 forum
    comments and tweets; fast, and blind to veiled insults.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        written = [text.text for text in texts if text.text.strip()]
        found: Iterator[float] = iter(_probabilities(written) if written else [])
        return {"toxicity": [float(next(found)) if text.text.strip() else math.nan for text in texts]}


def _probabilities(texts: list[str]) -> Any:
    import profanity_check  # loads its model, and half a second of scikit-learn

    return cast("Any", profanity_check).predict_prob(texts)
