"""Phrases that separate bad texts from good ones: log-odds ratios with an informative prior.

The method is that of Monroe, Colaresi & Quinn 2008, "Fightin' Words" (doi:10.1093/pan/mpn018), equations 15,
16, 20 and 22. With the counts b and g of a phrase in bad and good texts, the totals B and G of all phrases,
and the prior a of the phrase with the total A:

    odds   = log((b + a) / (B + A - b - a)) - log((g + a) / (G + A - g - a))
    z      = odds / sqrt(1 / (b + a) + 1 / (g + a))

The prior is the phrase's share of all texts, times PRIOR_COUNTS. It draws rare phrases to 0.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from cfg_lab.metrics.words import words

PRIOR_COUNTS = 500.0
"""Total of the prior: as many phrases as the prior counts for."""

LEAST_TEXTS = 3
"""A phrase must occur in at least this many bad texts."""

LARGEST_SHARE = 0.5
"""A phrase that occurs in a larger share of all texts says nothing of their quality: "the", "it was"."""

LONGEST = 2
"""Longest phrase, in words."""


def separating_phrases(bad: Sequence[str], good: Sequence[str], others: Sequence[str] = ()) -> list[str]:
    """Phrases of one or two words that are typical of bad texts, those with the largest z first.

    Only phrases with z above 0 are returned. Of two phrases with equal z the first in the alphabet comes
    first.

    Args:
        bad, good: the texts to separate.
        others: further texts, which only count for the prior.
    """
    scores = z_scores(bad, good, others)
    texts = [set(_phrases(text)) for text in (*bad, *good, *others)]
    in_all = Counter(phrase for phrases in texts for phrase in phrases)
    in_bad = Counter(phrase for phrases in texts[: len(bad)] for phrase in phrases)
    kept = [
        phrase
        for phrase, z in scores.items()
        if z > 0 and in_bad[phrase] >= LEAST_TEXTS and in_all[phrase] <= LARGEST_SHARE * len(texts)
    ]
    return sorted(kept, key=lambda phrase: (-scores[phrase], phrase))


def z_scores(bad: Sequence[str], good: Sequence[str], others: Sequence[str] = ()) -> dict[str, float]:
    """The z of every phrase, see the formula above. Above 0: more frequent in bad texts."""
    counts_bad, counts_good, counts_others = (
        Counter(phrase for text in texts for phrase in _phrases(text)) for texts in (bad, good, others)
    )
    everything = counts_bad + counts_good + counts_others
    total = everything.total()
    total_bad, total_good = counts_bad.total(), counts_good.total()
    scores: dict[str, float] = {}
    for phrase, count in everything.items():
        prior = PRIOR_COUNTS * count / total
        b, g = counts_bad[phrase] + prior, counts_good[phrase] + prior
        rest_bad, rest_good = total_bad + PRIOR_COUNTS - b, total_good + PRIOR_COUNTS - g
        if rest_bad > 0 and rest_good > 0:  # else there is no other phrase
            odds = math.log(b / rest_bad) - math.log(g / rest_good)
            scores[phrase] = odds / math.sqrt(1 / b + 1 / g)
    return scores


def _phrases(text: str) -> list[str]:
    """All phrases of a text, each as often as it occurs."""
    found = words(text)
    return [
        " ".join(found[begin : begin + length])
        for length in range(1, LONGEST + 1)
        for begin in range(len(found) - length + 1)
    ]
