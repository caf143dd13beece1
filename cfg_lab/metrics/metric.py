"""What a metric is."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from cfg_lab.metrics.text import Text


class Metric(Protocol):
    """Scores texts. A frozen dataclass, whose repr names the scorer: another repr scores again.

    `score([])` must work and load whatever is needed: it is called before anything is decoded, so that a
    missing package or model is known at once.

    A metric of a set of texts (self-BLEU, Vendi score, MAUVE) has a class attribute `together = True`: then
    `score` is given all texts of one cell at a time. It, too, gives a value a text, so that everything
    downstream stays as it is: a mean over texts, an interval over prompts, paired differences. What is a
    number of one prompt's texts is given to each of them; what is a number of the whole cell is spread over
    them by the jackknife (see `jackknife.spread`), whose mean is that number and whose interval is honest.
    Its scores are kept for the text in its set: another text in the cell, and they are made anew.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        """KVBuffer of values, one a text, in order; NaN where a text cannot be scored."""
        ...


def scored_together(metric: Metric) -> bool:
    """Whether a metric has to see all texts of a cell at once."""
    return bool(getattr(metric, "together", False))


def scorer_key(metric: Metric) -> str:
    """Short hash of a metric's settings."""
    return blake2b(repr(metric).encode(), digest_size=6).hexdigest()
