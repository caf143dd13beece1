"""What metrics are called: what each measures, in a line, and which direction is good.

The full definitions, with ranges and sources, are the docstrings in `cfg_lab/metrics/`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

Direction = Literal["higher", "lower"]

_KNOWN: dict[str, tuple[Direction | None, str]] = {
    "perplexity*": ("lower", "how unexpected the text is to the model without guidance; 1 is certain"),
    "bits_per_byte*": (
        "lower",
        "bits for each byte of text without guidance; compares across models",
    ),
    "evaluator_perplexity*": ("lower", "how unexpected the text is to another, independent model"),
    "evaluator_*": ("lower", "bits for each byte of text under another, independent model"),
    "guided_log_prob*": (None, "mean log-prob of the tokens under the guided distribution, nats"),
    "sentiment*": ("higher", "probability that the text is positive in tone, by a classifier"),
    "toxicity*": (
        "lower",
        "probability that the text is offensive, by a classifier of profanity",
    ),
    "leakage*": ("lower", "how near the text is in meaning to the negative's phrases, cosine of embeddings"),
    "relevance*": ("higher", "how near the text is in meaning to its prompt, cosine of embeddings"),
    "formality*": (None, "how formal the words are, by their length and by contractions; 1 is formal"),
    "language*": ("higher", "probability that the text is in the language asked for"),
    "topic_*": (None, "share of this topic among those named, by embeddings"),
    "reading_ease*": (None, "Flesch's reading ease: 0 is hard, 100 easy"),
    "reading_grade*": (None, "Flesch and Kincaid's school grade"),
    "distinct*": ("higher", "share of a text's {n}-grams that are different ones"),
    "repeated*": ("lower", "share of a text's {n}-grams that occurred before in it"),
    "longest_repeat*": ("lower", "words of the longest run that occurs twice, as a share of the text"),
    "compression*": ("lower", "how much smaller the text gets when compressed; higher is more repetitive"),
    "self_bleu_across*": ("lower", "how alike the wording is of texts of different prompts, BLEU"),
    "self_bleu*": ("lower", "how alike the wording is of a prompt's samples, BLEU"),
    "vendi_across*": ("higher", "how many different texts the cell holds in effect, by meaning"),
    "vendi*": ("higher", "how many different texts a prompt's samples are in effect, by meaning"),
    "mauve*": (
        "higher",
        "how close the texts are to human ones as a whole, by meaning; 1 is equal",
    ),
    "exact_match*": ("higher", "whether the text is the reference, but for case, articles and punctuation"),
    "token_f1*": ("higher", "words shared with the reference: harmonic mean of precision and recall"),
    "accuracy*": ("higher", "share of right answers"),
    "correct*": ("higher", "whether the answer is right"),
    "bleu*": ("higher", "n-grams shared with the reference, BLEU"),
    "chrf*": ("higher", "n-grams of letters shared with the reference, chrF"),
    "rouge*": ("higher", "overlap with the reference, ROUGE F1"),
    "length": (None, "new tokens"),
    "words": (None, "words of the text"),
    "stopped": (None, "share of texts that ended by themselves, not at the limit"),
    "degenerate*": ("lower", "share of texts that are empty or one token over and over"),
    "forward_tokens": (None, "tokens that the models read for a text, of all branches"),
    "gflop": (None, "billions of operations that a text took"),
    "negatives_saved": (None, "share of the negatives' tokens that a schedule or an adaptive stop spared"),
}
"""By name, the first that fits. A direction of None: a length, or a label that could be wanted or not."""


def better(metric: str) -> Direction | None:
    """Whether higher or lower values of a metric are good; None where it has no direction."""
    return _known(metric)[0]


def meaning(metric: str) -> str:
    """What a metric measures, in a line; "" for one that is not the lab's own."""
    return _known(metric)[1].replace("{n}", metric.rpartition("_")[2])


def _known(metric: str) -> tuple[Direction | None, str]:
    return next((known for pattern, known in _KNOWN.items() if fnmatchcase(metric, pattern)), (None, ""))
