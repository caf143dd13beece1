"""How long a text is, and whether it is one at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Length:
    """Length and ending of each text.

    length: new tokens, a stop token not counted.
    words: separated by white space.
    stopped: 1 where the text ended by itself, 0 where it was cut at max_new_tokens.
    degenerate: 1 where the text is empty or one token over and over, else 0.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "length": [float(len(text.log_probs)) for text in texts],
            "words": [float(len(text.text.split())) for text in texts],
            "stopped": [float(text.finish_reason == "stop") for text in texts],
            "degenerate": [float(_degenerate(text)) for text in texts],
        }


def _degenerate(text: Text) -> bool:
    spoken = text.tokens[: len(text.log_probs)]
    return not text.text.strip() or (len(spoken) > 1 and len(set(spoken)) == 1)
