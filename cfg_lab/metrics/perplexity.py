"""How likely a text is to the model without guidance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of the new text under the unguided model given the prompt.

    perplexity: exp of the mean negative log-prob a token; at least 1, lower is more likely.
    bits_per_byte: the summed negative log2-prob over the text's UTF-8 bytes; at least 0. Compares across
    tokenizers, which perplexity does not.

    A stop token is not part of the text and does not count. NaN for empty texts. Source of the log-probs:
    the positive branch, recorded while decoding, before temperature and truncation.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "perplexity": [_perplexity(text) for text in texts],
            "bits_per_byte": [_bits_per_byte(text) for text in texts],
        }


def _perplexity(text: Text) -> float:
    spoken = text.log_probs
    return math.exp(-sum(spoken) / len(spoken)) if spoken else math.nan


def _bits_per_byte(text: Text) -> float:
    size = len(text.text.encode())
    return -sum(text.log_probs) / math.log(2) / size if size else math.nan
