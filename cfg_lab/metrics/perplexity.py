"""Metric: the likelihood of a text under the model without guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, AT_LEAST_1, ColumnInfo
from cfg_lab.metrics.likelihood import bits_per_byte, perplexity
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Perplexity of the new text under the unguided model, given the prompt.

    perplexity: exp of the mean negative log-prob per token, at least 1. Lower is more likely.
    bits_per_byte: the summed negative log2-prob divided by the text's number of UTF-8 bytes, at least 0. Use
    this column to compare models with different tokenizers, because their perplexities cannot be compared.

    A stop token is not part of the text and does not count. NaN for empty texts. The log-probs are those of
    the positive branch (the model on the prompt, without guidance). They are recorded while decoding, before
    temperature and truncation.
    """

    columns = MappingProxyType(
        {
            "perplexity": ColumnInfo(
                meaning="how unexpected the text is to the model without guidance; 1 is certain",
                better="lower",
                bounds=AT_LEAST_1,
                role="fluency",
                languages=ANY_LANGUAGE,
            ),
            "bits_per_byte": ColumnInfo(
                meaning="bits for each byte of text without guidance; compares across models",
                better="lower",
                bounds=AT_LEAST_0,
                role="fluency",
                rank=1,
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "perplexity": [perplexity(text.log_probs) for text in texts],
            "bits_per_byte": [bits_per_byte(text.log_probs, text.text) for text in texts],
        }
