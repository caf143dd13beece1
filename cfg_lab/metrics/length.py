"""Metric: how long a text is, and how it ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import AT_LEAST_0, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Length:
    """Length and ending of each text.

    length: number of new tokens, without a stop token.
    words: number of words, separated by white space.
    stopped: 1 if the text ended by itself, 0 if it was cut at max_new_tokens.
    degenerate: 1 if the text is empty or repeats a single token, else 0.
    """

    columns = MappingProxyType(
        {
            "length": ColumnInfo(meaning="new tokens", bounds=AT_LEAST_0, role="other"),
            "words": ColumnInfo(meaning="words of the text", bounds=AT_LEAST_0, role="other"),
            "stopped": ColumnInfo(
                meaning="share of texts that ended by themselves, not at the limit",
                bounds=SHARE,
                role="other",
            ),
            "degenerate": ColumnInfo(
                meaning="share of texts that are empty or repeat a single token",
                better="lower",
                bounds=SHARE,
                role="other",
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "length": [float(len(text.log_probs)) for text in texts],
            "words": [float(len(text.text.split())) for text in texts],
            "stopped": [float(text.finish_reason == "stop") for text in texts],
            "degenerate": [float(_is_degenerate(text)) for text in texts],
        }


def _is_degenerate(text: Text) -> bool:
    tokens = text.tokens[: len(text.log_probs)]  # without the stop token
    return not text.text.strip() or (len(tokens) > 1 and len(set(tokens)) == 1)
