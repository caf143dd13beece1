"""What metrics are called: what each measures, in a line, which direction is good, and what it can be.

The full definitions, with sources, are the docstrings in `cfg_lab/metrics/`.
"""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Literal

Direction = Literal["higher", "lower"]
Bounds = tuple[float, float]

SHARE: Bounds = (0, 1)
COSINE: Bounds = (-1, 1)
FROM_0: Bounds = (0, math.inf)
FROM_1: Bounds = (1, math.inf)
UP_TO_0: Bounds = (-math.inf, 0)
ANY: Bounds = (-math.inf, math.inf)

_KNOWN: dict[str, tuple[Direction | None, Bounds, str]] = {
    "perplexity*": (
        "lower",
        FROM_1,
        "how unexpected the text is to the model without guidance; 1 is certain",
    ),
    "bits_per_byte*": (
        "lower",
        FROM_0,
        "bits for each byte of text without guidance; compares across models",
    ),
    "evaluator_perplexity*": ("lower", FROM_1, "how unexpected the text is to another, independent model"),
    "evaluator_*": ("lower", FROM_0, "bits for each byte of text under another, independent model"),
    "guided_log_prob*": (None, UP_TO_0, "mean log-prob of the tokens under the guided distribution, nats"),
    "sentiment*": ("higher", SHARE, "probability that the text is positive in tone, by a classifier"),
    "toxicity*": ("lower", SHARE, "probability that the text is offensive, by a classifier of profanity"),
    "leakage*": (
        "lower",
        COSINE,
        "how near the text is in meaning to the negative's phrases, cosine of embeddings",
    ),
    "relevance*": ("higher", COSINE, "how near the text is in meaning to its prompt, cosine of embeddings"),
    "formality*": (None, SHARE, "how formal the words are, by their length and contractions; 1 is formal"),
    "language*": ("higher", SHARE, "probability that the text is in the language asked for"),
    "topic_*": (None, SHARE, "share of this topic among those named, by embeddings"),
    "reading_ease*": (None, ANY, "Flesch's reading ease: 0 is hard, 100 easy"),
    "reading_grade*": (None, ANY, "Flesch and Kincaid's school grade"),
    "distinct*": ("higher", SHARE, "share of a text's {n}-grams that are different ones"),
    "repeated*": ("lower", SHARE, "share of a text's {n}-grams that occurred before in it"),
    "longest_repeat*": ("lower", SHARE, "words of the longest run that occurs twice, as a share of the text"),
    "compression*": (
        "lower",
        FROM_0,
        "how much smaller the text gets when compressed; higher is more repetitive",
    ),
    "self_bleu_across*": ("lower", SHARE, "how alike the wording is of texts of different prompts, BLEU"),
    "self_bleu*": ("lower", SHARE, "how alike the wording is of a prompt's samples, BLEU"),
    "vendi_across*": ("higher", FROM_1, "how many different texts the cell holds in effect, by meaning"),
    "vendi*": ("higher", FROM_1, "how many different texts a prompt's samples are in effect, by meaning"),
    "mauve*": ("higher", SHARE, "how close the texts are to human ones as a whole, by meaning; 1 is equal"),
    "exact_match*": (
        "higher",
        SHARE,
        "whether the text is the reference, but for case, articles and punctuation",
    ),
    "token_f1*": ("higher", SHARE, "words shared with the reference: harmonic mean of precision and recall"),
    "accuracy*": ("higher", SHARE, "share of right answers"),
    "correct*": ("higher", SHARE, "whether the answer is right"),
    "bleu*": ("higher", SHARE, "n-grams shared with the reference, BLEU"),
    "chrf*": ("higher", SHARE, "n-grams of letters shared with the reference, chrF"),
    "rouge*": ("higher", SHARE, "overlap with the reference, ROUGE F1"),
    "length": (None, FROM_0, "new tokens"),
    "words": (None, FROM_0, "words of the text"),
    "stopped": (None, SHARE, "share of texts that ended by themselves, not at the limit"),
    "degenerate*": ("lower", SHARE, "share of texts that are empty or one token over and over"),
    "forward_tokens": (None, FROM_0, "tokens that the models read for a text, of all branches"),
    "gflop": (None, FROM_0, "billions of operations that a text took"),
    "negatives_saved": (
        None,
        SHARE,
        "share of the negatives' tokens that a schedule or an adaptive stop spared",
    ),
}
"""By name, the first that fits. A direction of None: a length, or a label that could be wanted or not. The
bounds are of what is shown, a mean: of metrics of a whole cell the single values are the jackknife's.
"""


def better(metric: str) -> Direction | None:
    """Whether higher or lower values of a metric are good; None where it has no direction."""
    return _known(metric)[0]


def bounds(metric: str) -> Bounds:
    """Least and greatest mean a metric can have; -inf and inf where that is not known."""
    return _known(metric)[1]


def meaning(metric: str) -> str:
    """What a metric measures, in a line; "" for one that is not the lab's own."""
    return _known(metric)[2].replace("{n}", metric.rpartition("_")[2])


def _known(metric: str) -> tuple[Direction | None, Bounds, str]:
    fits = (known for pattern, known in _KNOWN.items() if fnmatchcase(metric, pattern))
    return next(fits, (None, ANY, ""))
