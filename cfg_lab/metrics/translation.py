"""Metric: how close a text is to a reference translation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.bleu import load_bleu, load_chrf
from cfg_lab.metrics.column_info import ANY_LANGUAGE, SHARE, ColumnInfo
from cfg_lab.metrics.references import best_score
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Translation:
    """BLEU and chrF of a text against the prompt's `reference`, by sacrebleu, divided by 100: in [0, 1].

    bleu: BLEU of one sentence, with effective order and exponential smoothing (Post 2018, arXiv:1804.08771).
    The mean of this column over texts is not corpus BLEU.
    chrf: character n-grams up to 6, beta 2 (Popović 2015).

    An empty text has the value 0. If a prompt has several references, the best value counts. The values are
    NaN if the prompt has no reference.

    Args:
        tokenize: how BLEU divides sentences into tokens: a name of sacrebleu. "auto" is "zh" for a reference
            in Chinese, "char" for other scripts without spaces (Japanese, Thai, Lao, Khmer, Burmese), and
            "13a" for all others. "ja-mecab" and "ko-mecab" need packages that have to be installed.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "bleu": ColumnInfo(
                meaning="n-grams shared with the reference, BLEU",
                better="higher",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            ),
            "chrf": ColumnInfo(
                meaning="n-grams of letters shared with the reference, chrF",
                better="higher",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            ),
        }
    )

    tokenize: str = "auto"

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        compare = {"bleu": load_bleu(self.tokenize), "chrf": load_chrf()}
        return {
            column: [best_score(text, partial(function, text.text)) for text in texts]
            for column, function in compare.items()
        }
