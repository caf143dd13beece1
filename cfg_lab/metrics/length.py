"""Metric: how long a text is, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import space_out


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length and ending of each text.

    length: number of new tokens, without a stop token.
    words: number of words, separated by white space. Each character of scripts without spaces (see
    `words.words`) counts as a word.
    stopped: 1 if the text ended by itself, 0 if it was cut at max_new_tokens.
    degenerate: 1 if the text is empty or repeats a single token, else 0.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "length": ColumnInfo(
                meaning="new tokens", bounds=AT_LEAST_0, role="other", languages=ANY_LANGUAGE
            ),
            "words": ColumnInfo(
                meaning="words of the text", bounds=AT_LEAST_0, role="other", languages=ANY_LANGUAGE
            ),
            "stopped": ColumnInfo(
                meaning="share of texts that ended by themselves, not at the limit",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "degenerate": ColumnInfo(
                meaning="share of texts that are empty or repeat a single token",
                better="lower",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "length": [float(len(text.log_probs)) for text in texts],
            "words": [float(_word_count(text.text)) for text in texts],
            "stopped": [float(text.finish_reason == "stop") for text in texts],
            "degenerate": [float(_is_degenerate(text)) for text in texts],
        }


def _word_count(text: str) -> int:
    """Number of words between white space. In scripts without spaces, each letter or digit is a word."""
    counts = (sum(any(map(str.isalnum, word)) for word in space_out(chunk).split()) for chunk in text.split())
    return sum(max(1, count) for count in counts)


def _is_degenerate(text: Text) -> bool:
    tokens = text.tokens[: len(text.log_probs)]  # without the stop token
    return not text.text.strip() or (len(tokens) > 1 and len(set(tokens)) == 1)
