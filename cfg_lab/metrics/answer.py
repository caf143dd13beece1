"""Metric: whether a text is the expected answer."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, SHARE, ColumnInfo
from cfg_lab.metrics.references import best_score
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import space_out


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Agreement with the prompt's `reference`, as in SQuAD (Rajpurkar et al. 2016, arXiv:1606.05250).

    In other languages as in MLQA (Lewis et al. 2020, arXiv:1910.07475).

    exact_match: 1 if the normalised text equals the normalised reference, else 0.
    token_f1: harmonic mean of precision and recall of the normalised words, counted with repetitions, in
    [0, 1]. If the text or the reference has no words: 1 if neither has, else 0.

    A normalised text is in lower case, without punctuation of any script, without the words "a", "an" and
    "the", and has single spaces. Full-width letters and other compatibility characters become usual ones
    (NFKC). Each character of scripts without spaces (see `words.words`) is a word. Only English articles are
    removed.

    An empty text is scored. If a prompt has several references, the best value counts. Both values are NaN if
    the prompt has no reference.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "exact_match": ColumnInfo(
                meaning="whether the text is the reference, apart from case, articles and punctuation",
                better="higher",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            ),
            "token_f1": ColumnInfo(
                meaning="words shared with the reference: harmonic mean of precision and recall",
                better="higher",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        compare = {"exact_match": _exact_match, "token_f1": _token_f1}
        return {
            column: [best_score(text, partial(function, text.text)) for text in texts]
            for column, function in compare.items()
        }


def normalised_answer(text: str) -> str:
    """A text in lower case without punctuation, articles and repeated white space.

    >>> normalised_answer("“The Paris！”"), normalised_answer("巴黎，法国")
    ('paris', '巴 黎 法 国')
    """
    unpunctuated = "".join(filter(_is_kept, unicodedata.normalize("NFKC", text).lower()))
    return " ".join(space_out(re.sub(r"\b(a|an|the)\b", " ", unpunctuated)).split())


def _is_kept(character: str) -> bool:
    """Whether a character is neither Unicode punctuation nor one of ASCII's symbols, such as $ and +."""
    return character not in string.punctuation and not unicodedata.category(character).startswith("P")


def _exact_match(text: str, reference: str) -> float:
    return float(normalised_answer(text) == normalised_answer(reference))


def _token_f1(text: str, reference: str) -> float:
    words, reference_words = normalised_answer(text).split(), normalised_answer(reference).split()
    if not words or not reference_words:
        return float(words == reference_words)
    common = sum((Counter(words) & Counter(reference_words)).values())
    return 2 * common / (len(words) + len(reference_words))
