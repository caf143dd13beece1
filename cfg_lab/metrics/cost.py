"""Metric: how much computation a text took, so that methods can be compared at equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How much the models had to compute for each text, as if the text had been decoded alone.

    A branch is a context on which a model runs: the positive context, or a negative one.

    forward_tokens: number of tokens that the models read: contexts and new tokens, of all branches and beams.
    gflop: 2 * parameters * tokens read / 1e9, summed over the models of the branches (Kaplan et al. 2020,
    arXiv:2001.08361). The products inside attention are left out, because they are few for short contexts.
    negatives_saved: share of the negatives' tokens that were not read because a schedule or an adaptive rule
    stopped the negatives, in [0, 1]. NaN if there is no negative.
    """

    columns = MappingProxyType(
        {
            "forward_tokens": ColumnInfo(
                meaning="tokens that the models read for a text, of all branches",
                bounds=AT_LEAST_0,
                languages=ANY_LANGUAGE,
            ),
            "gflop": ColumnInfo(
                meaning="billions of operations that a text took", bounds=AT_LEAST_0, languages=ANY_LANGUAGE
            ),
            "negatives_saved": ColumnInfo(
                meaning="share of the negatives' tokens that a schedule or an adaptive rule saved",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "forward_tokens": [float(sum(text.tokens_read)) for text in texts],
            "gflop": [
                2e-9 * sum(n * size for n, size in zip(text.tokens_read, text.parameters, strict=True))
                for text in texts
            ],
            "negatives_saved": [_negatives_saved(text) for text in texts],
        }


def _negatives_saved(text: Text) -> float:
    if len(text.tokens_read) < 2:
        return math.nan
    return 1 - sum(text.tokens_read[1:]) / sum(text.tokens_read_in_full[1:])
